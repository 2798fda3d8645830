/*
 * template_host.c - the process that holds a template: it makes copies for whoever asks at its socket, in the name of
 * its user, with the streams and in the directory of the one who asks.
 *
 * Copies are its children. They outlive it: told to stop, it gives up its memory and its name, and stays only as long
 * as somebody waits to hear how a copy has ended.
 */
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/cli/template.h"
#include "engine/laps.h"
#include "store/scope.h"

#define PATIENCE_S 5 /* a client says all it has to say at once */

struct copy {
	pid_t pid;
	int line; /* of who waits for it; -1: nobody */
};

struct host {
	struct fsnap_template *template;
	struct template_facts facts;
	int place, listener, signals;
	struct copy *copies;
	size_t n_copies, room;
};

/* --- copies -------------------------------------------------------------------------------- */

static int remember(struct host *host, pid_t pid, int line, struct fsnap_error *err)
{
	if (host->n_copies == host->room) {
		size_t room = host->room ? 2 * host->room : 64;
		struct copy *copies = reallocarray(host->copies, room, sizeof(*copies));
		if (!copies)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "copies");
		host->copies = copies;
		host->room = room;
	}
	host->copies[host->n_copies++] = (struct copy){ pid, line };
	host->facts.copies++;
	return 0;
}

static void bury(struct host *host)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		for (size_t i = 0; i < host->n_copies; i++) {
			struct copy *copy = &host->copies[i];
			if (copy->pid != pid)
				continue;
			const struct template_end end = { status };
			if (copy->line >= 0)
				template_send(copy->line, &end, sizeof(end), NULL, 0);
			scope_close(&copy->line);
			*copy = host->copies[--host->n_copies];
			break;
		}
}

static bool is_awaited(const struct host *host)
{
	for (size_t i = 0; i < host->n_copies; i++)
		if (host->copies[i].line >= 0)
			return true;
	return false;
}

/* --- requests ---------------------------------------------------------------------------------- */

static void answer(const struct host *host, int line, struct template_answer *told)
{
	snprintf(told->version, sizeof(told->version), "%s", fsnap_version());
	told->facts = host->facts;
	told->facts.running = host->n_copies;
	template_send(line, told, sizeof(*told), NULL, 0);
}

/* Files that led outside the tree become those of the client, as with any restore. */
static void wear(const int *streams, int directory)
{
	for (int i = 0; i < 3; i++)
		dup2(streams[i], i);
	if (fchdir(directory) < 0)
		_exit(1); /* never in a wrong one */
}

static int split(const struct template_request *request, size_t size, char ***argv, struct fsnap_error *err)
{
	char *at = (char *)request->words, *end = (char *)request + size;

	*argv = request->n_words < TEMPLATE_REQUEST ? calloc(request->n_words + 1, sizeof(**argv)) : NULL;
	for (uint32_t i = 0; *argv && i < request->n_words; i++) {
		(*argv)[i] = at;
		at = at < end ? memchr(at, '\0', (size_t)(end - at)) : NULL;
		if (!at++)
			return fail(err, FSNAP_E_USAGE, 0, "a request that is not whole");
	}
	return *argv ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "a request");
}

/* Descriptors of --fd and --external, which come in this order, have other numbers here. Texts that replace the words are
 * put into `owned`. */
static int renumber(const char **words, const int *fds, char **owned, size_t *n, struct fsnap_error *err)
{
	for (; words && *words; words++) {
		const char *equals = strrchr(*words, '=');

		if (!equals || *n == TEMPLATE_HANDED || fds[*n] < 0)
			return fail(err, FSNAP_E_USAGE, 0, "%s: no descriptor has come for it", *words);
		if (asprintf(&owned[*n], "%.*s=%d", (int)(equals - *words), *words, fds[*n]) < 0) {
			owned[*n] = NULL;
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "a request");
		}
		*words = owned[(*n)++];
	}
	return 0;
}

/* Returns how many were made. */
static unsigned copy(struct host *host, const struct cli *cli, int line, struct fsnap_restore_report **reports,
		     struct fsnap_error *err)
{
	struct fsnap_restore_options options;
	char *message = NULL;
	unsigned n = 0;
	int result = restore_choose(cli, &options, &message, err);

	options.from = host->template;
	options.detach = 1;
	if (result == 0)
		result = clones_count(cli->clones, &n, err);
	*reports = result == 0 ? calloc(n, sizeof(**reports)) : NULL;
	if (result == 0 && !*reports)
		result = fail(err, FSNAP_E_NOMEM, ENOMEM, "copies");
	if (*reports)
		(*reports)[0].size = sizeof(**reports);
	if (result == 0)
		result = fsnap_clones(&options, n, *reports, err);
	free(message);
	for (unsigned i = 0; result == 0 && i < n; i++)
		result = remember(host, (*reports)[i].pid, cli->detach || cli->clones ? -1 : fcntl(line, F_DUPFD_CLOEXEC, 3),
				  err);
	return result == 0 ? n : 0;
}

static void serve_copy(struct host *host, int line, const struct template_request *request, size_t size, const int *fds)
{
	struct template_answer told = { .result = -1 };
	struct cli cli = { 0 };
	cleanup_free struct fsnap_restore_report *reports = NULL;
	cleanup_free char **argv = NULL;
	char *owned[TEMPLATE_HANDED] = { NULL };
	size_t n_owned = 0;
	unsigned n = 0;
	uint64_t mark = clock_ns(CLOCK_MONOTONIC);

	wear(fds, fds[3]);
	optind = 0; /* getopt_long(3) begins anew */
	if (split(request, size, &argv, &told.err) == 0 &&
	    options_parse((int)request->n_words, argv, &cli, &told.err) == 0 &&
	    renumber(cli.fds, &fds[TEMPLATE_OWN], owned, &n_owned, &told.err) == 0 &&
	    renumber(cli.externals, &fds[TEMPLATE_OWN], owned, &n_owned, &told.err) == 0)
		n = copy(host, &cli, line, &reports, &told.err);
	options_free(&cli);
	for (size_t i = 0; i < n_owned; i++)
		free(owned[i]);
	told.total_us = lap(&mark);
	for (unsigned i = 0; i < n; i++) {
		told.result = 0;
		told.left = n - 1 - i;
		told.report = reports[i];
		answer(host, line, &told);
	}
	if (n == 0)
		answer(host, line, &told);
}

/* Socket and memory go first: who is told that it has stopped can start another of this name. */
static void stop(struct host *host)
{
	unlinkat(host->place, host->facts.name, 0);
	scope_close(&host->listener);
	host->listener = -1;
	fsnap_template_close(host->template);
	host->template = NULL;
}

/* Copies are made with our rights: for our own user, and for root. */
static bool is_ours(int line)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t size = sizeof(peer);

	return getsockopt(line, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

/* Who asked has given up, as when we were stopped: nobody would know of a copy. */
static bool is_gone(int line)
{
	struct pollfd look = { .fd = line };

	return poll(&look, 1, 0) == 1 && look.revents & POLLHUP;
}

static void serve(struct host *host, int line, int null, int root)
{
	const int nothing[3] = { null, null, null };
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	struct template_answer told = { 0 };
	int fds[TEMPLATE_FDS];
	cleanup_free struct template_request *request = malloc(TEMPLATE_REQUEST);

	setsockopt(line, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	ssize_t got = request ? template_receive(line, request, TEMPLATE_REQUEST, fds) : -1;
	if (got < (ssize_t)sizeof(*request) || !is_ours(line) || is_gone(line)) {
		for (int i = 0; got > 0 && i < TEMPLATE_FDS; i++)
			scope_close(&fds[i]);
		return;
	}
	if (request->verb == TEMPLATE_COPY && fds[3] >= 0) {
		serve_copy(host, line, request, (size_t)got, fds);
		wear(nothing, root);
	} else if (request->verb == TEMPLATE_STOP) {
		stop(host);
		answer(host, line, &told);
	} else {
		answer(host, line, &told);
	}
	for (int i = 0; i < TEMPLATE_FDS; i++)
		scope_close(&fds[i]);
}

/* --- the process -------------------------------------------------------------------------------- */

_Noreturn static void run(struct host *host)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct signalfd_siginfo info;

	while (host->template || is_awaited(host)) {
		struct pollfd wait[] = { { .fd = host->signals, .events = POLLIN },
					 { .fd = host->listener, .events = POLLIN } };
		if (poll(wait, 2, -1) < 0 && errno != EINTR)
			break;
		if (wait[0].revents && read(host->signals, &info, sizeof(info)) == sizeof(info)) {
			if (info.ssi_signo == SIGCHLD)
				bury(host);
			else if (host->template)
				stop(host);
		}
		cleanup_fd int line = wait[1].revents && host->template ? accept4(host->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (line >= 0)
			serve(host, line, null, root);
	}
	_exit(0);
}

static int hold_nothing(int but)
{
	int null = open("/dev/null", O_RDWR);

	for (int i = 0; i < 3; i++)
		dup2(null, i);
	if (null > 2)
		close(null);
	if (but > 3)
		close_range(3, (unsigned)but - 1, 0);
	close_range((unsigned)but + 1, ~0u, 0);
	return chdir("/");
}

/* SIGCHLD and what ends it arrive in turn, not in the midst of a copy. */
static int take_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGHUP, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

_Noreturn static void be_host(const char *store, const char *image, const char *name, int told)
{
	struct host host = { .place = -1, .listener = -1, .facts = { .pid = getpid() } };
	struct template_answer said = { .result = -1 };

	setsid();
	prctl(PR_SET_NAME, "fsnap-template");
	host.signals = take_signals();
	if (fsnap_template_open(store, image, &host.template, &said.err) == 0) {
		snprintf(host.facts.image, sizeof(host.facts.image), "%s", fsnap_template_image(host.template));
		snprintf(host.facts.name, sizeof(host.facts.name), "%s", name ? name : host.facts.image);
		host.facts.bytes = fsnap_template_bytes(host.template);
		host.place = template_place(store, true, &said.err);
		host.listener = host.place < 0 ? -1 : template_listen(host.place, host.facts.name, &said.err);
		said.result = host.listener < 0 ? -1 : 0;
	}
	answer(&host, told, &said);
	close(told);
	if (said.result < 0)
		_exit(1);
	run(&host);
}

int template_start(const char *store, const char *image, const char *name, struct template_answer *said,
		   struct fsnap_error *err)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a template");
	cleanup_fd int ours = ends[0], theirs = ends[1];
	fflush(NULL);
	pid_t between = fork();
	if (between == 0) {
		/* Whoever started us must not wait for it, nor be its parent. */
		if (fork() != 0)
			_exit(0);
		if (hold_nothing(theirs) == 0)
			be_host(store, image, name, theirs);
		_exit(1);
	}
	if (between < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a template");
	waitpid(between, NULL, 0);
	close(steal_fd(&theirs));
	if (template_receive(ours, said, sizeof(*said), NULL) != sizeof(*said))
		return fail(err, FSNAP_E_SYSTEM, 0, "the process that is to hold the template ended without a word");
	if (said->result < 0)
		*err = said->err;
	return said->result;
}
