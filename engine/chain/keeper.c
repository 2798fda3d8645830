/*
 * keeper.c - the process that holds the userfaultfds of a tracked tree while nobody dumps it.
 *
 * The kernel tracks as long as somebody has them. The keeper understands nothing of what it keeps: it hands the
 * parcel to one dump at a time, and takes the next. Words of a dump, one byte each:
 *
 *	GIVE_UP	 from here on pages are taken: what is kept has no base any more
 *	RETURN	 a parcel follows, with a base
 *	STOP	 end
 *
 * A dump that ends without a RETURN leaves the keeper with the old descriptors and, if it had come to that, without
 * a base. If the keeper ends, however, tracking does, and the next dump is one like any other.
 *
 * It is found by an abstract name (unix(7)) made of the root's PID and start time; each end asks the kernel who the
 * other one is.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/heat/heat.h"
#include "store/scope.h"

#define BACKLOG 8
#define PATIENCE_S 5 /* it answers at once, if it is not stopped */

enum { GIVE_UP = 'g', RETURN = 'r', STOP = 's' };

static socklen_t name_of(struct sockaddr_un *address, const char *what, pid_t pid, uint64_t start)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	int n = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "fsnap-%s-%d-%llu", what, pid,
			 (unsigned long long)start);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static bool is_trusted(int socket)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

/* --- the keeper ------------------------------------------------------------------------------------ */

struct keeper {
	pid_t pid;
	int listener, root; /* root: pidfd */
	bool heat; /* a watch was begun with it */
	struct parcel parcel;
	bool valid;
	int dump; /* connection, or -1 */
};

/* False: it is to end. */
static bool hear(struct keeper *keeper)
{
	char word = 0;
	struct parcel next;
	bool valid;
	ssize_t n = recv(keeper->dump, &word, 1, 0);
	if (n == 1 && word == STOP) {
		if (keeper->heat)
			heat_watch_end(keeper->pid, NULL);
		return false;
	}
	if (n == 1 && word == GIVE_UP) {
		keeper->valid = false;
		return true;
	}
	if (n == 1 && word == RETURN) {
		bool whole = parcel_receive(keeper->dump, &next, &valid) == 0;
		if (whole) {
			parcel_close(&keeper->parcel);
			keeper->parcel = next;
			keeper->valid = valid;
			send(keeper->dump, &word, 1, MSG_NOSIGNAL); /* it may say that it is done */
			return true;
		}
		parcel_close(&next);
	}
	close(keeper->dump);
	keeper->dump = -1;
	return true;
}

static void answer(struct keeper *keeper)
{
	int dump = accept4(keeper->listener, NULL, NULL, SOCK_CLOEXEC);
	if (dump < 0)
		return;
	/* One at a time: another finds the connection closed. */
	if (keeper->dump >= 0 || !is_trusted(dump) || parcel_send(dump, &keeper->parcel, keeper->valid) < 0)
		close(dump);
	else
		keeper->dump = dump;
}

static void keep(struct keeper *keeper)
{
	for (;;) {
		struct pollfd polled[] = { { keeper->root, POLLIN, 0 }, { keeper->listener, POLLIN, 0 },
					   { keeper->dump, POLLIN, 0 } };
		if (poll(polled, 3, -1) < 0 && errno != EINTR)
			return;
		if (polled[0].revents)
			return;
		if (polled[2].revents && !hear(keeper))
			return;
		if (polled[1].revents)
			answer(keeper);
	}
}

static int listen_for(pid_t pid, uint64_t start, struct fsnap_error *err)
{
	struct sockaddr_un address;
	socklen_t size = name_of(&address, "track", pid, start);
	cleanup_fd int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, BACKLOG) == 0)
		return steal_fd(&listener);
	if (errno != EADDRINUSE)
		return fail(err, FSNAP_E_SYSTEM, errno, "tracking process %d", pid);
	fail(err, FSNAP_E_USAGE, 0, "process %d is tracked already", pid);
	return error_hint(err, "fsnap track -t %d --stop ends that", pid);
}

/* All but what it keeps is closed: it must not hold anybody's pipe open. */
static void close_others(const struct keeper *keeper)
{
	int null = open("/dev/null", O_RDWR);
	unsigned highest = 0;
	for (unsigned fd = 3; fd < 65536; fd = highest) {
		highest = fd + 1;
		bool ours = (int)fd == keeper->listener || (int)fd == keeper->root || (int)fd == keeper->parcel.memfd;
		for (unsigned i = 0; i < keeper->parcel.n_fds && !ours; i++)
			ours = (int)fd == keeper->parcel.fds[i];
		if (!ours && (int)fd != null)
			close((int)fd);
	}
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	if (null > 2)
		close(null);
}

static void live(struct keeper *keeper)
{
	pid_t child = fork();
	if (child != 0)
		_exit(child < 0); /* whoever asked for it is to have no child */
	setsid();
	if (chdir("/") < 0)
		_exit(1);
	for (int signal = 1; signal < 32; signal++)
		if (signal != SIGTERM)
			(void)sigaction(signal, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	(void)sigaction(SIGHUP, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
	prctl(PR_SET_NAME, "fsnap-track");
	listen(keeper->listener, BACKLOG); /* whose it is by SO_PEERCRED: ours now (net/unix/af_unix.c, unix_listen()) */
	close_others(keeper);
	keep(keeper);
	_exit(0);
}

int keeper_start(pid_t pid, uint64_t start, struct chain *chain, bool heat, struct fsnap_error *err)
{
	struct keeper keeper = { .pid = pid, .heat = heat, .dump = -1, .listener = listen_for(pid, start, err) };
	if (keeper.listener < 0)
		return -1;
	int result = -1, status = 0;
	keeper.root = (int)syscall(SYS_pidfd_open, pid, 0);
	if (keeper.root < 0)
		fail(err, FSNAP_E_NO_PROCESS, errno, "process %d", pid);
	else if (parcel_make(chain, &keeper.parcel, err) == 0) {
		pid_t child = fork();
		if (child == 0)
			live(&keeper);
		if (child < 0)
			fail(err, FSNAP_E_SYSTEM, errno, "tracking process %d", pid);
		else if (TEMP_FAILURE_RETRY(waitpid(child, &status, 0)) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0)
			result = 0;
		else
			fail(err, FSNAP_E_SYSTEM, 0, "tracking process %d: a process of its own", pid);
	}
	chain->is_kept = result == 0;
	keeper.parcel.n_fds = 0; /* the chain's */
	parcel_close(&keeper.parcel);
	scope_close(&keeper.root);
	close(keeper.listener);
	return result;
}

/* --- who asks it --------------------------------------------------------------------------------------- */

static int reach(pid_t pid, uint64_t start)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	struct sockaddr_un address;
	socklen_t size = name_of(&address, "track", pid, start);
	cleanup_fd int keeper = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (keeper < 0 || setsockopt(keeper, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(keeper, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(keeper, (struct sockaddr *)&address, size) < 0 || !is_trusted(keeper))
		return -1;
	return steal_fd(&keeper);
}

/* Who of it is the other end was asked of the kernel, not of it. */
static int is_silent(int keeper, pid_t pid, struct fsnap_error *err)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);
	getsockopt(keeper, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d (fsnap-track), which keeps track of process %d, does not answer",
	     peer.pid, pid);
	return error_hint(err, "is it stopped? kill -CONT %d, or end it: then tracking has ended", peer.pid);
}

/* --- those who need none: fsnap watch ------------------------------------------------------------------ */

/* It accepts nobody: that one can connect is all there is to know. Somebody else's does not count. */
static bool is_watched(pid_t pid, uint64_t start)
{
	struct sockaddr_un address;
	socklen_t size = name_of(&address, "watch", pid, start);
	cleanup_fd int watcher = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return watcher >= 0 && connect(watcher, (struct sockaddr *)&address, size) == 0 && is_trusted(watcher);
}

int keeper_refuse_watched(pid_t pid, uint64_t start, struct fsnap_error *err)
{
	if (!is_watched(pid, start))
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "process %d is saved by `fsnap watch`, which tracks it by itself", pid);
	return error_hint(err, "end that first, with ^C or SIGINT");
}

int keeper_claim_watch(pid_t pid, uint64_t start, int *claim, struct fsnap_error *err)
{
	struct sockaddr_un address;
	socklen_t size = name_of(&address, "watch", pid, start);
	cleanup_fd int keeper = reach(pid, start);
	if (keeper >= 0) {
		fail(err, FSNAP_E_USAGE, 0, "process %d is tracked: each image of a watch would be stored in full", pid);
		return error_hint(err, "`fsnap track -t %d --stop` ends that; watch tracks it by itself", pid);
	}
	if (keeper_refuse_watched(pid, start, err) < 0)
		return -1;
	*claim = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*claim >= 0 && (bind(*claim, (struct sockaddr *)&address, size) < 0 || listen(*claim, SOMAXCONN) < 0))
		scope_close(claim); /* others do not see it: no reason not to watch */
	return 0;
}

/* --- what a dump asks ---------------------------------------------------------------------------------- */

struct chain *keeper_ask(pid_t pid, uint64_t start, int *keeper, struct fsnap_error *err)
{
	struct parcel parcel;
	bool valid = false;
	cleanup_fd int socket = reach(pid, start);
	if (socket < 0)
		return NULL;
	errno = 0;
	if (parcel_receive(socket, &parcel, &valid) < 0) {
		bool silent = errno == EAGAIN;
		parcel_close(&parcel);
		if (silent && is_silent(socket, pid, err) < 0)
			return NULL;
		fail(err, FSNAP_E_TRACED, 0, "process %d is being saved by another fsnap", pid);
		error_hint(err, "wait for that, or end tracking: fsnap track -t %d --stop", pid);
		return NULL;
	}
	struct chain *chain = parcel_open(&parcel, err);
	parcel_close(&parcel);
	if (!chain)
		return NULL;
	if (!valid)
		chain->base[0] = '\0';
	*keeper = steal_fd(&socket);
	return chain;
}

static int say(int keeper, char word)
{
	return send(keeper, &word, 1, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

/* Not waited for: whatever becomes of us, it hears this before it hears that we are gone. */
int keeper_give_up_base(int keeper)
{
	return say(keeper, GIVE_UP);
}

int keeper_return(int keeper, const struct chain *chain)
{
	struct parcel parcel = { .memfd = -1 };
	char word;
	int result = parcel_make(chain, &parcel, NULL);
	if (result == 0 && (say(keeper, RETURN) < 0 || parcel_send(keeper, &parcel, chain->base[0] != '\0') < 0 ||
			    recv(keeper, &word, 1, 0) != 1))
		result = -1;
	parcel.n_fds = 0;
	parcel_close(&parcel);
	return result;
}

int keeper_stop(pid_t pid, uint64_t start, struct fsnap_error *err)
{
	char rest[64];
	cleanup_fd int keeper = reach(pid, start);
	if (keeper < 0) {
		fail(err, FSNAP_E_USAGE, 0, "process %d is not tracked", pid);
		return error_hint(err, "fsnap track -t %d begins it", pid);
	}
	if (say(keeper, STOP) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "ending the tracking of process %d", pid);
	ssize_t n;
	while ((n = recv(keeper, rest, sizeof(rest), 0)) > 0) /* until it is gone */
		;
	return n < 0 && errno == EAGAIN ? is_silent(keeper, pid, err) : 0;
}
