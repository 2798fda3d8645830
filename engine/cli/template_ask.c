/*
 * template_ask.c - a word with who holds a template, and what can be said if there is no answer.
 *
 * Who was killed has left its socket: connect(2) is refused there. Who was stopped, or hangs, still has calls taken by the
 * kernel: it is waited for as long as it works, but not for ever.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/cli/template.h"
#include "engine/procfs.h"
#include "store/scope.h"
#include "store/store.h"

#define LOOK_MS 200
#define PATIENCE_MS 30000     /* without using any processor time, until it says what is quick to say */
#define PATIENCE_COPY_MS 600000 /* and when a copy is to be made: directories may go with it */

int template_store(const struct cli *cli, char *dir, size_t size, struct fsnap_error *err)
{
	if (!cli->store)
		return fsnap_default_store(dir, size, err);
	snprintf(dir, size, "%s", cli->store);
	return 0;
}

static int not_there(const char *name, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_MISSING, 0, "there is no template %s", name);
	return error_hint(err, "fsnap template list shows those there are; fsnap template start IMAGE makes one");
}

static int was_killed(const char *name, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_MISSING, 0, "template %s: the process that held it was killed", name);
	return error_hint(err, "hold it anew: fsnap template start; fsnap template stop %s forgets it", name);
}

static int takes_no_calls(const char *name, struct fsnap_error *err)
{
	fail(err, FSNAP_E_TARGET_BUSY, 0, "template %s: the process that holds it takes no more calls", name);
	return error_hint(err, "is it stopped, or stuck? pgrep fsnap-template finds it; kill -CONT lets it go on, kill -KILL "
			       "ends it (its copies go on)");
}

int template_reach(const struct cli *cli, const char *name, struct fsnap_error *err)
{
	char store[4096];

	if (template_store(cli, store, sizeof(store), err) < 0 || store_check_name(name, err) < 0)
		return -1;
	cleanup_fd int place = template_place(store, false, err);
	int line = place < 0 ? -1 : template_connect(place, name);
	if (line >= 0 || error_is_set(err))
		return line;
	switch (errno) {
	case EACCES:
		return fail(err, FSNAP_E_PERMISSION, errno, "template %s", name);
	case ECONNREFUSED:
		return was_killed(name, err);
	case EAGAIN:
		return takes_no_calls(name, err);
	default:
		return not_there(name, err);
	}
}

bool template_forget(int place, const char *name)
{
	/* Under the lock of who gives sockets names: between bind(2) and listen(2) calls are refused, too. */
	flock(place, LOCK_EX);
	cleanup_fd int line = template_connect(place, name);
	bool forgotten = line < 0 && errno == ECONNREFUSED && unlinkat(place, name, 0) == 0;
	flock(place, LOCK_UN);
	return forgotten;
}

/* --- asking ------------------------------------------------------------------------------ */

bool template_ask(int line, enum template_verb verb, int argc, char **argv, const int *handed, unsigned n_handed)
{
	cleanup_free struct template_request *request = malloc(TEMPLATE_REQUEST);
	size_t size = sizeof(*request);
	cleanup_fd int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fds[TEMPLATE_FDS] = { null, null, null, here };

	if (!request || here < 0 || null < 0)
		return false;
	for (int i = 0; i < 3; i++)
		if (fcntl(i, F_GETFD) >= 0)
			fds[i] = i;
	for (unsigned i = 0; i < n_handed; i++)
		fds[TEMPLATE_OWN + i] = handed[i];
	*request = (struct template_request){ .verb = verb, .n_words = (uint32_t)argc };
	for (int i = 0; i < argc; i++) {
		size_t length = strlen(argv[i]) + 1;
		if (length > TEMPLATE_REQUEST - size) {
			errno = E2BIG;
			return false;
		}
		memcpy((char *)request + size, argv[i], length);
		size += length;
	}
	return template_send(line, request, size, fds, verb == TEMPLATE_COPY ? TEMPLATE_OWN + n_handed : 0);
}

/* --- hearing ----------------------------------------------------------------------------- */

static int is_stopped(pid_t pid, const struct procfs_stat *stat, struct fsnap_error *err)
{
	fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d, which holds the template, is %s", pid,
	     stat->state == 't' ? "stopped by a debugger" : "stopped");
	return error_hint(err, "let it go on: kill -CONT %d; or end it: kill -KILL %d (its copies go on)", pid, pid);
}

static int hangs(pid_t pid, unsigned ms, struct fsnap_error *err)
{
	fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d, which holds the template, has done nothing for %u s", pid, ms / 1000);
	return error_hint(err, "end it: kill -KILL %d (its copies go on), and start the template anew", pid);
}

/* Until there is something to be read, or nothing more to be hoped for. It serves one after the other: who waits for many
 * copies of somebody else sees it at work. */
static int await_word(int line, unsigned patience_ms, struct fsnap_error *err)
{
	struct ucred holder = { 0 };
	socklen_t size = sizeof(holder);
	unsigned long ticks = 0;
	struct pollfd wait = { .fd = line, .events = POLLIN };
	char path[32];

	if (getsockopt(line, SOL_SOCKET, SO_PEERCRED, &holder, &size) < 0)
		holder.pid = 0; /* as is one of another PID namespace */
	snprintf(path, sizeof(path), "/proc/%d/stat", holder.pid);
	for (unsigned idle = 0; poll(&wait, 1, LOOK_MS) == 0; idle += LOOK_MS) {
		struct procfs_stat stat = { .state = 'S' };
		if (holder.pid && procfs_stat(AT_FDCWD, path, &stat, NULL) < 0)
			continue; /* it ended: that will be read */
		if (stat.state == 'T' || stat.state == 't')
			return is_stopped(holder.pid, &stat, err);
		if (stat.ticks != ticks)
			idle = 0;
		ticks = stat.ticks;
		if (idle >= patience_ms)
			return hangs(holder.pid, idle, err);
	}
	return 0;
}

int template_hear(int line, enum template_verb verb, struct template_answer *told, struct fsnap_error *err)
{
	if (await_word(line, verb == TEMPLATE_COPY ? PATIENCE_COPY_MS : PATIENCE_MS, err) < 0)
		return -1;
	ssize_t got = template_receive(line, told, sizeof(*told), NULL);

	if (got != sizeof(*told)) {
		fail(err, FSNAP_E_SYSTEM, got < 0 ? errno : 0, "the process that holds the template ended without a word");
		return error_hint(err, "hold it anew: fsnap template start");
	}
	if (strcmp(told->version, fsnap_version()) != 0) {
		fail(err, FSNAP_E_SYSTEM, 0, "the template is held by fsnap %s, this is %s", told->version, fsnap_version());
		return error_hint(err, "stop it and start it anew");
	}
	told->report.prefetching = NULL; /* pointers of that process */
	told->report.streaming = NULL;
	if (told->result < 0)
		*err = told->err;
	return told->result;
}
