/*
 * template.c - fsnap template: images held ready, from which copies are made.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/cli/template.h"
#include "store/scope.h"
#include "store/store.h"

/* --- asking ------------------------------------------------------------------------------ */

static int not_there(const char *name, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_MISSING, 0, "there is no template %s", name);
	return error_hint(err, "fsnap template list shows those there are; fsnap template start IMAGE makes one");
}

static int store_of(const struct cli *cli, char *dir, size_t size, struct fsnap_error *err)
{
	if (!cli->store)
		return fsnap_default_store(dir, size, err);
	snprintf(dir, size, "%s", cli->store);
	return 0;
}

static int reach(const struct cli *cli, const char *name, struct fsnap_error *err)
{
	char store[4096];

	if (store_of(cli, store, sizeof(store), err) < 0 || store_check_name(name, err) < 0)
		return -1;
	cleanup_fd int place = template_place(store, false, err);
	int line = place < 0 ? -1 : template_connect(place, name);
	if (line < 0 && !error_is_set(err))
		return errno == EACCES ? fail(err, FSNAP_E_PERMISSION, errno, "template %s", name) : not_there(name, err);
	return line;
}

static bool ask(int line, enum template_verb verb, int argc, char **argv)
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
	return template_send(line, request, size, fds, verb == TEMPLATE_COPY ? TEMPLATE_FDS : 0);
}

static int hear(int line, struct template_answer *told, struct fsnap_error *err)
{
	ssize_t got = template_receive(line, told, sizeof(*told), NULL);

	if (got != sizeof(*told))
		return fail(err, FSNAP_E_SYSTEM, got < 0 ? errno : 0, "the template ended without a word");
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

/* --- start, list, stop ------------------------------------------------------------------------- */

static void tell_facts(struct json *json, const struct template_facts *facts)
{
	json_object(json);
	json_string(json_key(json, "name"), facts->name);
	json_string(json_key(json, "image"), facts->image);
	json_u64(json_key(json, "pid"), (uint64_t)facts->pid);
	json_u64(json_key(json, "shared_bytes"), facts->bytes);
	json_u64(json_key(json, "copies"), facts->copies);
	json_u64(json_key(json, "running"), facts->running);
	json_close(json);
}

static int start(const struct cli *cli, struct fsnap_error *err)
{
	struct template_answer told;
	char store[4096];

	if ((cli->name && store_check_name(cli->name, err) < 0) || store_of(cli, store, sizeof(store), err) < 0 ||
	    template_start(store, cli->n_words > 1 ? cli->words[1] : NULL, cli->name, &told, err) < 0)
		return -1;
	if (cli->json) {
		struct json json = output_json();

		tell_facts(&json, &told.facts);
		json_finish(&json);
	} else if (!cli->quiet) {
		printf("%s: process %d holds %s ready, %s of its memory shared by copies\n", told.facts.name,
		       (int)told.facts.pid, told.facts.image, text_bytes(told.facts.bytes).s);
		printf("  make one with: fsnap template copy %s\n", told.facts.name);
	}
	return EXIT_SUCCESS;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct template_facts *)a)->name, ((const struct template_facts *)b)->name);
}

/* Of all that answer; those that were killed have left a name, which the next of that name replaces. */
static struct template_facts *find_all(const struct cli *cli, size_t *n, struct fsnap_error *err)
{
	char store[4096];
	struct template_facts *found = calloc(1, sizeof(*found));

	*n = 0;
	if (!found || store_of(cli, store, sizeof(store), err) < 0)
		return NULL;
	cleanup_fd int place = template_place(store, false, err);
	if (place < 0 && !error_is_set(err))
		return found;
	cleanup_dir DIR *dir = place < 0 ? NULL : fdopendir(fcntl(place, F_DUPFD_CLOEXEC, 0));
	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		struct fsnap_error ignored = { 0 };
		struct template_answer told;
		cleanup_fd int line = entry->d_name[0] == '.' ? -1 : template_connect(place, entry->d_name);
		if (line < 0 || !ask(line, TEMPLATE_ASK, 0, NULL) || hear(line, &told, &ignored) < 0)
			continue;
		struct template_facts *more = reallocarray(found, *n + 1, sizeof(*found));
		if (!more)
			break;
		found = more;
		found[(*n)++] = told.facts;
	}
	qsort(found, *n, sizeof(*found), by_name);
	return error_is_set(err) ? NULL : found;
}

static int list(const struct cli *cli, struct fsnap_error *err)
{
	size_t n;
	cleanup_free struct template_facts *all = find_all(cli, &n, err);

	if (!all)
		return -1;
	if (cli->json) {
		struct json json = output_json();

		json_object(&json);
		json_array(json_key(&json, "templates"));
		for (size_t i = 0; i < n; i++)
			tell_facts(&json, &all[i]);
		json_close(&json);
		json_close(&json);
		json_finish(&json);
		return EXIT_SUCCESS;
	}
	if (n && !cli->quiet)
		printf("%-24s %-24s %8s %10s %8s %8s\n", "TEMPLATE", "IMAGE", "PROCESS", "SHARED", "COPIES", "RUNNING");
	for (size_t i = 0; i < n; i++)
		if (cli->quiet)
			puts(all[i].name);
		else
			printf("%-24s %-24s %8d %10s %8llu %8llu\n", all[i].name, all[i].image, (int)all[i].pid,
			       text_bytes(all[i].bytes).s, (unsigned long long)all[i].copies,
			       (unsigned long long)all[i].running);
	return EXIT_SUCCESS;
}

static int stop_one(const struct cli *cli, const char *name, struct fsnap_error *err)
{
	struct template_answer told;
	cleanup_fd int line = reach(cli, name, err);

	if (line < 0)
		return -1;
	if (!ask(line, TEMPLATE_STOP, 0, NULL))
		return fail(err, FSNAP_E_SYSTEM, errno, "asking template %s", name);
	return hear(line, &told, err);
}

static int stop(const struct cli *cli, struct fsnap_error *err)
{
	size_t n = 0;
	cleanup_free struct template_facts *all = cli->all ? find_all(cli, &n, err) : NULL;

	if ((cli->n_words > 1) == cli->all)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap template stop needs a name, or --all");
	if (cli->all && !all)
		return -1;
	if (!cli->all && stop_one(cli, cli->words[1], err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (stop_one(cli, all[i].name, err) < 0)
			return -1;
	if (cli->json) {
		struct json json = output_json();

		json_object(&json);
		json_array(json_key(&json, "stopped"));
		for (size_t i = 0; i < n; i++)
			json_string(&json, all[i].name);
		if (!cli->all)
			json_string(&json, cli->words[1]);
		json_close(&json);
		json_close(&json);
		json_finish(&json);
	}
	return EXIT_SUCCESS;
}

/* --- copy ------------------------------------------------------------------------------------------ */

/* It is not our child, but what is sent to us is meant for it, and as it ends we end. */
static int stand_in(int line, pid_t pid, struct fsnap_error *err)
{
	static const int forwarded[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT };
	struct template_end end;
	struct signalfd_siginfo info;
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(&set, forwarded[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	cleanup_fd int signals = signalfd(-1, &set, SFD_CLOEXEC);
	for (;;) {
		struct pollfd wait[] = { { .fd = line, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
		poll(wait, 2, -1);
		if (wait[1].revents && read(signals, &info, sizeof(info)) == sizeof(info))
			kill(pid, (int)info.ssi_signo);
		if (!wait[0].revents)
			continue;
		if (template_receive(line, &end, sizeof(end), NULL) != sizeof(end)) {
			fail(err, FSNAP_E_SYSTEM, 0, "the template was killed: process %d is nobody's to wait for", pid);
			return error_hint(err, "it goes on; end it with kill(1)");
		}
		return WIFEXITED(end.status) ? WEXITSTATUS(end.status) : 128 + WTERMSIG(end.status);
	}
}

static int copy(const struct cli *cli, struct fsnap_error *err)
{
	struct template_answer told;
	unsigned n;

	if (cli->n_words < 2)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap template copy needs a name");
	if (clones_count(cli->clones, &n, err) < 0)
		return -1;
	cleanup_fd int line = reach(cli, cli->words[1], err);
	cleanup_free struct fsnap_restore_report *reports = calloc(n, sizeof(*reports));
	if (line < 0)
		return -1;
	if (!reports)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%u copies", n);
	if (!ask(line, TEMPLATE_COPY, cli->argc, cli->argv))
		return fail(err, FSNAP_E_SYSTEM, errno, "asking template %s", cli->words[1]);
	for (unsigned i = 0; i < n; i++) {
		if (hear(line, &told, err) < 0)
			return -1;
		reports[i] = told.report;
	}
	if (cli->clones)
		clones_print(cli, reports, n, told.total_us);
	else
		restore_print(cli, &reports[0]);
	return cli->clones || cli->detach ? EXIT_SUCCESS : stand_in(line, reports[0].pid, err);
}

int cli_template(const struct cli *cli, struct fsnap_error *err)
{
	static const struct {
		const char *word;
		int (*run)(const struct cli *cli, struct fsnap_error *err);
	} verbs[] = { { "start", start }, { "list", list }, { "copy", copy }, { "stop", stop } };

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(cli->words[0], verbs[i].word) == 0)
			return verbs[i].run(cli, err);
	fail(err, FSNAP_E_USAGE, 0, "fsnap template %s: there is no such thing to be done", cli->words[0]);
	return error_hint(err, "say fsnap template start, list, copy or stop");
}
