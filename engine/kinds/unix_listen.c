/*
 * Listening Unix sockets, and those that wait there to be accepted.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/unix_job.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* With room for those that wait, even if the program has made it smaller since. */
static int backlog_of(const image_file_unix *state)
{
	int waiting = (int)state->waiting.waiting_len;
	return state->backlog > waiting ? state->backlog : waiting;
}

static void listen_for_all(void *arg)
{
	struct batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++)
		if (listen(batch->jobs[i].fds[0], backlog_of(batch->jobs[i].client->state)) < 0)
			batch->jobs[i].sys = errno;
}

static void listen_as_before(void *arg)
{
	const struct job *job = ((struct batch *)arg)->jobs;
	listen(job->fds[0], job->client->state->backlog);
}

static int listen_run(struct restore *restore, struct unix_bench *bench, struct batch *batch,
		      struct fsnap_error *err)
{
	for (size_t i = 0; i < batch->n; i++) {
		struct job *job = &batch->jobs[i];
		const image_file_unix *state = job->client->state;
		job->fds[0] = socket(AF_UNIX, job->type | SOCK_CLOEXEC, 0);
		if (job->fds[0] < 0)
			return unix_failed(job->client->file, err, "socket");
		if (sockopts_apply(job->client->file, job->fds[0], state->options.options_len,
				   state->options.options_val, SOCKOPT_EARLY, err) < 0 ||
		    unix_bind(&bench->shadow, job->client->file, state, job->fds[0], err) < 0)
			return -1;
	}
	if (unix_jobs_run_as(restore, batch->jobs->first, -1, listen_for_all, batch, err) < 0)
		return -1;
	for (size_t i = 0; i < batch->n; i++) {
		unix_jobs_give(restore, bench, batch->jobs[i].client, batch->jobs[i].fds[0]);
		batch->jobs[i].fds[0] = -1;
	}
	return 0;
}

int unix_listen_all(struct restore *restore, struct unix_bench *bench, struct job *jobs,
			  struct fsnap_error *err)
{
	size_t n = 0;
	for (size_t i = 0; i < bench->n; i++) {
		struct unix_end *end = &bench->ends[i];
		if (end->state->state == UNIX_LISTENING)
			jobs[n++] = (struct job){.client = end, .first = &end->state->peer_maker,
						 .type = end->state->type, .fds = {-1, -1}};
	}
	qsort(jobs, n, sizeof(*jobs), unix_job_by_first);
	int result = unix_jobs_for_runs(restore, bench, jobs, n, unix_job_by_first, listen_run, err);
	unix_jobs_drop(jobs, n);
	return result;
}

/* --- those that wait to be accepted ---------------------------------------------------------------------- */

static void connect_waiting(void *arg)
{
	struct batch *batch = arg;
	const char *directory = batch->jobs->server->state->directory;
	int there = directory && directory[0] && batch->jobs->listener < 0 ? chdir(directory) : 0;
	for (size_t i = 0; i < batch->n && !there; i++) {
		struct job *job = &batch->jobs[i];
		int result = connect(job->fds[0], (const struct sockaddr *)job->name.bytes, job->name.length);
		job->sys = result < 0 && errno != EISCONN ? errno : 0;
	}
}

static int waiting_run(struct restore *restore, struct unix_bench *bench, struct batch *batch,
		       struct fsnap_error *err)
{
	const image_file_unix *listener = batch->jobs->server->state;
	int root = unix_in_shadow(listener) ? unix_shadow_root(&bench->shadow) : -1;
	struct fsnap_error why = {0};
	for (size_t i = 0; i < batch->n; i++)
		batch->jobs[i].listener = root; /* says where the name is to be found */
	if (unix_jobs_run_as(restore, batch->jobs->second, root, connect_waiting, batch, &why) == 0)
		return 0;
	/* Its user may have lost the right to go there. */
	return unix_jobs_run_as(restore, NULL, root, connect_waiting, batch, err);
}

static void close_gone(struct job *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!jobs[i].client)
			close(jobs[i].fds[0]);
}

int unix_refill_backlog(struct restore *restore, struct unix_bench *bench, struct unix_end *listener,
			struct fsnap_error *err)
{
	const image_file_unix *state = listener->state;
	static const image_maker nobody;
	size_t n = state->waiting.waiting_len;
	cleanup_free struct job *jobs = calloc(n + 1, sizeof(*jobs));
	if (!n)
		return 0;
	if (!jobs)
		return no_memory(err);
	for (size_t i = 0; i < n; i++) {
		struct unix_end *client = unix_end_of(bench, state->waiting.waiting_val[i]);
		int fd = client ? restore_fd(restore, client->file->id) :
				  socket(AF_UNIX, state->type | SOCK_CLOEXEC, 0);
		jobs[i] = (struct job){.client = client, .server = listener, .type = state->type,
				       .name = unix_address(state), .fds = {fd, -1},
				       .second = client ? &client->state->maker : &nobody};
	}
	int result = unix_jobs_for_runs(restore, bench, jobs, n, unix_job_by_second, waiting_run, err);
	for (size_t i = 0; i < n && result == 0; i++)
		result = unix_fill_early(restore, listener, (unsigned)i, jobs[i].fds[0], err);
	close_gone(jobs, n);
	if (result < 0 || backlog_of(state) == state->backlog)
		return result;
	struct job again = {.client = listener, .fds = {restore_fd(restore, listener->file->id), -1}};
	struct batch batch = {.jobs = &again, .n = 1};
	return unix_jobs_run_as(restore, &state->peer_maker, -1, listen_as_before, &batch, err);
}
