/*
 * Connections of Unix sockets.
 *
 * Both ends come into being together: as a socketpair, or, where one has a name,
 * through a listener of that name, so that getpeername(2) says what it said.  That
 * listener is our own and lives in the shadow: nobody else can come in between,
 * and a listener of the program finds its name free.
 *
 * SO_PEERCRED tells who called socketpair(2), listen(2) or connect(2).  So these
 * are called by errands (engine/errand.h) in the name of that process: one errand
 * for all that the same process has made.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/unix_job.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* --- pairs -------------------------------------------------------------------------------- */

static void make_pairs(void *arg)
{
	struct batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++) {
		struct job *job = &batch->jobs[i];
		if (socketpair(AF_UNIX, job->type | SOCK_CLOEXEC, 0, job->fds) < 0)
			job->sys = errno;
	}
}

/* --- connections by name ----------------------------------------------------------------------- */

/* One listener per name; jobs of the same name follow each other, and share that of the first. */
static void bind_listeners(void *arg)
{
	struct batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++) {
		struct job *job = &batch->jobs[i];
		if (!job->client && job->server->state->remote.remote_len)
			unix_bind_here((struct unix_address){job->server->state->remote.remote_val,
							     job->server->state->remote.remote_len}, job->fds[0]);
		if (i && unix_job_by_name(job, job - 1) == 0) {
			job->listener = job[-1].listener;
			continue;
		}
		job->listener = socket(AF_UNIX, job->type | SOCK_CLOEXEC, 0);
		if (job->listener < 0 || unix_bind_here(job->name, job->listener) < 0)
			job->sys = errno;
	}
}

static void unbind_listeners(void *arg)
{
	struct batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++)
		unix_unbind_here(batch->jobs[i].name);
}

static void listen_all(void *arg)
{
	struct batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++)
		if (listen(batch->jobs[i].listener, 1) < 0)
			batch->jobs[i].sys = errno;
}

/* Abstract names are open to everybody: whoever is not us is not let in. */
static int accept_own(int listener)
{
	for (;;) {
		struct ucred from;
		socklen_t size = sizeof(from);
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 || (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &from, &size) == 0 &&
			       from.pid == syscall(SYS_getpid)))
			return fd;
		close(fd);
	}
}

static void connect_all(void *arg)
{
	struct batch *batch = arg;
	for (size_t i = 0; i < batch->n; i++) {
		struct job *job = &batch->jobs[i];
		if (connect(job->fds[0], (const struct sockaddr *)job->name.bytes, job->name.length) < 0 ||
		    (job->fds[1] = accept_own(job->listener)) < 0)
			job->sys = errno;
	}
}

/* The client's own name is bound before: the server is told it when it accepts. */
static int make_clients(struct unix_bench *bench, struct batch *batch, struct fsnap_error *err)
{
	for (size_t i = 0; i < batch->n; i++) {
		struct job *job = &batch->jobs[i];
		job->fds[0] = socket(AF_UNIX, job->type | SOCK_CLOEXEC, 0);
		if (job->fds[0] < 0)
			return unix_failed(unix_job_someone(job)->file, err, "socket");
		if (job->client &&
		    unix_bind(&bench->shadow, job->client->file, job->client->state, job->fds[0], err) < 0)
			return -1;
	}
	return 0;
}

static void close_listeners(struct batch *batch)
{
	for (size_t i = 0; i < batch->n; i++)
		if (batch->jobs[i].listener >= 0 && (!i || batch->jobs[i].listener != batch->jobs[i - 1].listener))
			close(batch->jobs[i].listener);
}

static int connect_run(struct restore *restore, struct unix_bench *bench, struct batch *batch,
		       struct fsnap_error *err)
{
	return unix_jobs_run_as(restore, batch->jobs->second, unix_shadow_root(&bench->shadow), connect_all, batch,
				err);
}

/* All whose listener was made by one process. */
static int connect_by_name(struct restore *restore, struct unix_bench *bench, struct batch *batch,
			   struct fsnap_error *err)
{
	int root = unix_shadow_root(&bench->shadow);
	if (make_clients(bench, batch, err) < 0)
		return -1;
	qsort(batch->jobs, batch->n, sizeof(*batch->jobs), unix_job_by_name);
	cleanup_free struct job *named = malloc(batch->n * sizeof(*named));
	if (!named)
		return no_memory(err);
	int result = unix_jobs_run_as(restore, NULL, root, bind_listeners, batch, err);
	memcpy(named, batch->jobs, batch->n * sizeof(*named));
	struct batch listeners = {.jobs = named, .n = batch->n};
	if (result == 0)
		result = unix_jobs_run_as(restore, batch->jobs->first, -1, listen_all, batch, err);
	qsort(batch->jobs, batch->n, sizeof(*batch->jobs), unix_job_by_second);
	if (result == 0)
		result = unix_jobs_for_runs(restore, bench, batch->jobs, batch->n, unix_job_by_second, connect_run,
					    err);
	close_listeners(&listeners);
	struct fsnap_error ignored = {0};
	unix_jobs_run_as(restore, NULL, root, unbind_listeners, &listeners, &ignored);
	return result;
}

/* --- which connections there are ------------------------------------------------------------------ */

/* Two datagram sockets that are each other's peer can be a pair; one that is merely connected to
 * a name connects to it later. */
static bool is_pair(struct unix_bench *bench, const struct unix_end *end)
{
	const image_file_unix *state = end->state;
	if (state->state != UNIX_CONNECTED || state->peer == state->ino)
		return false;
	if (state->type != SOCK_DGRAM)
		return true;
	const struct unix_end *peer = unix_end_of(bench, state->peer);
	return peer ? peer->state->peer == state->ino : !state->remote.remote_len;
}

/* The end that has a name accepted; if both have one, that of a listener. One that was connected
 * to a name did not, if that is still to be seen. */
static struct unix_end *acceptor(struct unix_bench *bench, struct unix_end *a, struct unix_end *b)
{
	bool a_named = a->state->address.address_len, b_named = b && b->state->address.address_len;
	if (a->state->type == SOCK_DGRAM)
		return NULL;
	if (a_named && b_named)
		return unix_end_named(bench, a->state->type, a->state, UNIX_LISTENING) ? a : b;
	return b_named ? b : a_named ? a : NULL;
}

static bool can_bind(struct unix_bench *bench, struct unix_address name)
{
	return unix_is_abstract(name) || unix_shadow_root(&bench->shadow) >= 0;
}

static struct job job_for(struct restore *restore, struct unix_bench *bench, struct unix_end *a)
{
	struct unix_end *b = unix_end_of(bench, a->state->peer), *server = acceptor(bench, a, b);
	struct job job = {.client = a, .server = b, .type = a->state->type, .listener = -1, .fds = {-1, -1},
			  .first = &a->state->peer_maker, .second = &a->state->peer_maker};
	if (server) {
		job.client = server == a ? b : a;
		job.server = server;
		job.name = unix_address(server->state);
	} else if (!b && a->state->type != SOCK_DGRAM) {
		job.name = (struct unix_address){a->state->remote.remote_val, a->state->remote.remote_len};
	}
	if (job.client)
		job.first = &job.client->state->peer_maker;
	if (job.server)
		job.second = &job.server->state->peer_maker;
	if (!job.name.length || can_bind(bench, job.name))
		return job;
	restore_note(restore, "a Unix connection has lost the name of its listener");
	job.name.length = 0;
	return job;
}

/* --- the workshop gets them ------------------------------------------------------------------------- */

static void deliver(struct restore *restore, struct unix_bench *bench, struct job *job)
{
	struct unix_end *ends[] = {job->client, job->server};
	for (int i = 0; i < 2; i++) {
		int fd = job->fds[i];
		job->fds[i] = -1;
		if (ends[i])
			unix_jobs_give(restore, bench, ends[i], fd);
		else if (fd >= 0)
			ends[!i]->orphan = fd;
	}
}

/* Names that an end of a pair was given later. */
static int name_pair(struct unix_bench *bench, struct job *job, struct fsnap_error *err)
{
	struct unix_end *ends[] = {job->client, job->server};
	for (int i = 0; i < 2; i++)
		if (ends[i] && unix_bind(&bench->shadow, ends[i]->file, ends[i]->state, job->fds[i], err) < 0)
			return -1;
	return 0;
}

static int make_run(struct restore *restore, struct unix_bench *bench, struct batch *batch,
		    struct fsnap_error *err)
{
	if (batch->jobs->name.length) {
		if (connect_by_name(restore, bench, batch, err) < 0)
			return -1;
	} else if (unix_jobs_run_as(restore, batch->jobs->first, -1, make_pairs, batch, err) < 0) {
		return -1;
	}
	for (size_t i = 0; i < batch->n; i++) {
		if (!batch->jobs[i].name.length && name_pair(bench, &batch->jobs[i], err) < 0)
			return -1;
		deliver(restore, bench, &batch->jobs[i]);
	}
	return 0;
}

static int make_connections(struct restore *restore, struct unix_bench *bench, struct job *jobs,
			    struct fsnap_error *err)
{
	size_t n = 0;
	for (size_t i = 0; i < bench->n; i++) {
		struct unix_end *end = &bench->ends[i];
		if (end->paired || !is_pair(bench, end))
			continue;
		end->paired = true;
		end->peer = unix_end_of(bench, end->state->peer);
		if (end->peer) {
			end->peer->paired = true;
			end->peer->peer = end;
		}
		jobs[n++] = job_for(restore, bench, end);
	}
	qsort(jobs, n, sizeof(*jobs), unix_job_by_first);
	int result = unix_jobs_for_runs(restore, bench, jobs, n, unix_job_by_first, make_run, err);
	unix_jobs_drop(jobs, n);
	return result;
}

int unix_connect_all(struct restore *restore, struct unix_bench *bench, struct fsnap_error *err)
{
	cleanup_free struct job *jobs = calloc(bench->n, sizeof(*jobs));
	if (!jobs)
		return no_memory(err);
	bench->ready = true;
	/* Connections first: their listeners are ours, and need the names. */
	return make_connections(restore, bench, jobs, err) < 0 ? -1 :
								unix_listen_all(restore, bench, jobs, err);
}
