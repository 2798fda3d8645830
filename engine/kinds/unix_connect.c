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

#include "engine/errand.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* A connection or a listener to be made. */
struct job {
	struct unix_end *client, *server; /* NULL: it had been closed. A pair has no roles, a listener only itself */
	const image_maker *first;	  /* who listened, or made the pair */
	const image_maker *second;	  /* who connected */
	int type;
	struct unix_address name; /* of the listener; empty: a pair */
	int listener;
	int fds[2]; /* client, server */
	int sys;    /* errno of what failed, 0: nothing */
};

/* What one errand does. */
struct batch {
	struct job *jobs;
	size_t n;
};

/* --- who --------------------------------------------------------------------------------- */

static int compare_makers(const image_maker *a, const image_maker *b)
{
	if (a->pid != b->pid)
		return a->pid < b->pid ? -1 : 1;
	if (a->uid != b->uid)
		return a->uid < b->uid ? -1 : 1;
	if (a->gid != b->gid)
		return a->gid < b->gid ? -1 : 1;
	if (a->groups.groups_len != b->groups.groups_len)
		return a->groups.groups_len < b->groups.groups_len ? -1 : 1;
	return a->groups.groups_len ? memcmp(a->groups.groups_val, b->groups.groups_val,
					     a->groups.groups_len * sizeof(unsigned)) : 0;
}

static int by_first(const void *a, const void *b)
{
	const struct job *left = a, *right = b;
	if (!left->name.length != !right->name.length)
		return left->name.length ? 1 : -1;
	return compare_makers(left->first, right->first);
}

static int by_name(const void *a, const void *b)
{
	const struct job *left = a, *right = b;
	if (left->type != right->type)
		return left->type < right->type ? -1 : 1;
	if (left->name.length != right->name.length)
		return left->name.length < right->name.length ? -1 : 1;
	return memcmp(left->name.bytes, right->name.bytes, left->name.length);
}

static int by_second(const void *a, const void *b)
{
	return compare_makers(((const struct job *)a)->second, ((const struct job *)b)->second);
}

static struct unix_end *someone(const struct job *job)
{
	return job->client ? job->client : job->server;
}

static void note_maker(struct restore *restore, const image_maker *who)
{
	restore_note(restore, "SO_PEERCRED of Unix sockets that process %d made tells another number", who->pid);
}

static int run_as(struct restore *restore, const image_maker *who, int root, void (*work)(void *),
		  struct batch *batch, struct fsnap_error *err)
{
	struct errand errand = {.who = who, .root = root, .arg = batch};
	*(who ? &errand.work_as : &errand.work) = work;
	int result = errand_run(&errand);
	/* What this user may not take on is made in our own name. */
	if (result < 0 && errno == EPERM && who) {
		errand.who = NULL;
		errand.work = work;
		result = errand_run(&errand) < 0 ? -1 : 1;
	}
	if (result < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "making Unix connections in the name of process %d",
			    who ? who->pid : 0);
	if (result > 0 && who && who->pid)
		note_maker(restore, who);
	for (size_t i = 0; i < batch->n; i++) {
		if (!batch->jobs[i].sys)
			continue;
		errno = batch->jobs[i].sys;
		return unix_failed(someone(&batch->jobs[i])->file, err, "making a Unix connection");
	}
	return 0;
}

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
		if (i && by_name(job, job - 1) == 0) {
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
			return unix_failed(someone(job)->file, err, "socket");
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

/* The descriptors of a run are all open here at once, whatever the limit is. */
#define RUN_MOST 64

/* Calls `each` for every run of jobs that `order` finds equal. */
static int for_runs(struct restore *restore, struct unix_bench *bench, struct job *jobs, size_t n,
		    int (*order)(const void *, const void *),
		    int (*each)(struct restore *, struct unix_bench *, struct batch *, struct fsnap_error *),
		    struct fsnap_error *err)
{
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && end - i < RUN_MOST && order(&jobs[i], &jobs[end]) == 0; end++)
			;
		struct batch batch = {.jobs = &jobs[i], .n = end - i};
		if (each(restore, bench, &batch, err) < 0)
			return -1;
	}
	return 0;
}

static int connect_run(struct restore *restore, struct unix_bench *bench, struct batch *batch,
		       struct fsnap_error *err)
{
	return run_as(restore, batch->jobs->second, unix_shadow_root(&bench->shadow), connect_all, batch, err);
}

/* All whose listener was made by one process. */
static int connect_by_name(struct restore *restore, struct unix_bench *bench, struct batch *batch,
			   struct fsnap_error *err)
{
	int root = unix_shadow_root(&bench->shadow);
	if (make_clients(bench, batch, err) < 0)
		return -1;
	qsort(batch->jobs, batch->n, sizeof(*batch->jobs), by_name);
	cleanup_free struct job *named = malloc(batch->n * sizeof(*named));
	if (!named)
		return no_memory(err);
	int result = run_as(restore, NULL, root, bind_listeners, batch, err);
	memcpy(named, batch->jobs, batch->n * sizeof(*named));
	struct batch listeners = {.jobs = named, .n = batch->n};
	if (result == 0)
		result = run_as(restore, batch->jobs->first, -1, listen_all, batch, err);
	qsort(batch->jobs, batch->n, sizeof(*batch->jobs), by_second);
	if (result == 0)
		result = for_runs(restore, bench, batch->jobs, batch->n, by_second, connect_run, err);
	close_listeners(&listeners);
	struct fsnap_error ignored = {0};
	run_as(restore, NULL, root, unbind_listeners, &listeners, &ignored);
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

static void give(struct restore *restore, struct unix_bench *bench, struct unix_end *end, int fd)
{
	if (end->file == bench->making)
		bench->made = fd;
	else
		restore_give(restore, end->file->id, fd);
}

static void deliver(struct restore *restore, struct unix_bench *bench, struct job *job)
{
	struct unix_end *ends[] = {job->client, job->server};
	for (int i = 0; i < 2; i++) {
		int fd = job->fds[i];
		job->fds[i] = -1;
		if (ends[i])
			give(restore, bench, ends[i], fd);
		else if (fd >= 0)
			ends[!i]->orphan = fd;
	}
}

static void drop(struct job *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (int j = 0; j < 2; j++)
			if (jobs[i].fds[j] >= 0)
				close(jobs[i].fds[j]);
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
	} else if (run_as(restore, batch->jobs->first, -1, make_pairs, batch, err) < 0) {
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
	qsort(jobs, n, sizeof(*jobs), by_first);
	int result = for_runs(restore, bench, jobs, n, by_first, make_run, err);
	drop(jobs, n);
	return result;
}

/* --- listeners ---------------------------------------------------------------------------------------- */

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
	if (run_as(restore, batch->jobs->first, -1, listen_for_all, batch, err) < 0)
		return -1;
	for (size_t i = 0; i < batch->n; i++) {
		give(restore, bench, batch->jobs[i].client, batch->jobs[i].fds[0]);
		batch->jobs[i].fds[0] = -1;
	}
	return 0;
}

static int make_listeners(struct restore *restore, struct unix_bench *bench, struct job *jobs,
			  struct fsnap_error *err)
{
	size_t n = 0;
	for (size_t i = 0; i < bench->n; i++) {
		struct unix_end *end = &bench->ends[i];
		if (end->state->state == UNIX_LISTENING)
			jobs[n++] = (struct job){.client = end, .first = &end->state->peer_maker,
						 .type = end->state->type, .fds = {-1, -1}};
	}
	qsort(jobs, n, sizeof(*jobs), by_first);
	int result = for_runs(restore, bench, jobs, n, by_first, listen_run, err);
	drop(jobs, n);
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
								make_listeners(restore, bench, jobs, err);
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
	if (run_as(restore, batch->jobs->second, root, connect_waiting, batch, &why) == 0)
		return 0;
	/* Its user may have lost the right to go there. */
	return run_as(restore, NULL, root, connect_waiting, batch, err);
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
	int result = for_runs(restore, bench, jobs, n, by_second, waiting_run, err);
	for (size_t i = 0; i < n && result == 0; i++)
		result = unix_fill_early(restore, listener, (unsigned)i, jobs[i].fds[0], err);
	close_gone(jobs, n);
	if (result < 0 || backlog_of(state) == state->backlog)
		return result;
	struct job again = {.client = listener, .fds = {restore_fd(restore, listener->file->id), -1}};
	struct batch batch = {.jobs = &again, .n = 1};
	return run_as(restore, &state->peer_maker, -1, listen_as_before, &batch, err);
}
