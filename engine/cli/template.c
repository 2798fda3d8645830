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
#include "engine/handed.h"
#include "store/scope.h"
#include "store/store.h"

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

	if ((cli->name && store_check_name(cli->name, err) < 0) || template_store(cli, store, sizeof(store), err) < 0 ||
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

/* What is in the store: those that answer; of those that do not, one line each; names that somebody left who was killed
 * are removed, which is said, too. */
struct found {
	struct template_facts *all;
	size_t n;
	char *notes; /* lines */
	struct fsnap_error silent; /* of the last that did not answer */
};

static void free_found(struct found *found)
{
	free(found->all);
	free(found->notes);
}
#define cleanup_found __attribute__((cleanup(free_found)))

static void look_at(struct found *found, int place, const char *name, FILE *notes)
{
	struct fsnap_error why = { 0 };
	struct template_answer told;
	cleanup_fd int line = template_connect(place, name);

	if (line < 0 && errno == ECONNREFUSED) {
		if (template_forget(place, name))
			fprintf(notes, "template %s: the process that held it was killed; its name is removed\n", name);
		return;
	}
	if (line < 0 && errno == EAGAIN)
		fail(&why, FSNAP_E_TARGET_BUSY, 0, "the process that holds it takes no more calls");
	else if (line < 0 || !template_ask(line, TEMPLATE_ASK, 0, NULL, NULL, 0))
		return;
	if (line >= 0 && template_hear(line, TEMPLATE_ASK, &told, &why) == 0) {
		struct template_facts *more = reallocarray(found->all, found->n + 1, sizeof(*more));
		if (more)
			(found->all = more)[found->n++] = told.facts;
		return;
	}
	error_context(&why, "template %s", name);
	fprintf(notes, "%s (%s)\n", why.message, why.hint);
	found->silent = why;
}

static int find_all(const struct cli *cli, struct found *found, struct fsnap_error *err)
{
	char store[4096];
	size_t size;

	*found = (struct found){ 0 };
	if (template_store(cli, store, sizeof(store), err) < 0)
		return -1;
	cleanup_fd int place = template_place(store, false, err);
	if (place < 0)
		return error_is_set(err) ? -1 : 0;
	cleanup_dir DIR *dir = fdopendir(fcntl(place, F_DUPFD_CLOEXEC, 0));
	FILE *notes = dir ? open_memstream(&found->notes, &size) : NULL;
	if (!notes)
		return fail(err, FSNAP_E_NOMEM, errno, "looking for templates");
	for (struct dirent *entry; (errno = 0, entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			look_at(found, place, entry->d_name, notes);
	int sys = errno;
	fclose(notes);
	if (sys)
		return fail(err, FSNAP_E_SYSTEM, sys, "looking for templates");
	if (found->n)
		qsort(found->all, found->n, sizeof(*found->all), by_name);
	return 0;
}

static void tell_notes(struct json *json, const char *notes)
{
	json_array(json_key(json, "notes"));
	for (const char *line = notes ? notes : ""; *line; line += strcspn(line, "\n") + 1) {
		char text[sizeof(((struct fsnap_error *)0)->message) + sizeof(((struct fsnap_error *)0)->hint) + 8];
		snprintf(text, sizeof(text), "%.*s", (int)strcspn(line, "\n"), line);
		json_string(json, text);
	}
	json_close(json);
}

static int list(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_found struct found found;

	if (find_all(cli, &found, err) < 0)
		return -1;
	if (cli->json) {
		struct json json = output_json();

		json_object(&json);
		json_array(json_key(&json, "templates"));
		for (size_t i = 0; i < found.n; i++)
			tell_facts(&json, &found.all[i]);
		json_close(&json);
		tell_notes(&json, found.notes);
		json_close(&json);
		json_finish(&json);
		return EXIT_SUCCESS;
	}
	if (found.n && !cli->quiet)
		printf("%-24s %-24s %8s %10s %8s %8s\n", "TEMPLATE", "IMAGE", "PROCESS", "SHARED", "COPIES", "RUNNING");
	for (size_t i = 0; i < found.n; i++)
		if (cli->quiet)
			puts(found.all[i].name);
		else
			printf("%-24s %-24s %8d %10s %8llu %8llu\n", found.all[i].name, found.all[i].image,
			       (int)found.all[i].pid, text_bytes(found.all[i].bytes).s,
			       (unsigned long long)found.all[i].copies, (unsigned long long)found.all[i].running);
	output_notes(cli, found.notes ? found.notes : "");
	return EXIT_SUCCESS;
}

/* What somebody left who was killed is not there any more either: that is what was wanted. */
static int forget(const struct cli *cli, const char *name)
{
	char store[4096];
	struct fsnap_error ignored = { 0 };
	cleanup_fd int place = template_store(cli, store, sizeof(store), &ignored) < 0 ?
				       -1 : template_place(store, false, &ignored);

	if (place < 0 || !template_forget(place, name))
		return -1;
	if (!cli->quiet)
		fprintf(stderr, "fsnap: template %s: the process that held it was killed; its name is removed\n", name);
	return 0;
}

static int stop_one(const struct cli *cli, const char *name, struct fsnap_error *err)
{
	struct template_answer told;
	cleanup_fd int line = template_reach(cli, name, err);

	if (line < 0 && err->code == FSNAP_E_IMAGE_MISSING && forget(cli, name) == 0) {
		*err = (struct fsnap_error){ 0 };
		return 0;
	}
	if (line < 0)
		return -1;
	if (!template_ask(line, TEMPLATE_STOP, 0, NULL, NULL, 0))
		return fail(err, FSNAP_E_SYSTEM, errno, "asking template %s", name);
	return template_hear(line, TEMPLATE_STOP, &told, err) < 0 ? error_context(err, "template %s", name) : 0;
}

static int stop(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_found struct found found = { 0 };

	if ((cli->n_words > 1) == cli->all)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap template stop needs a name, or --all");
	if ((cli->all ? find_all(cli, &found, err) : stop_one(cli, cli->words[1], err)) < 0)
		return -1;
	for (size_t i = 0; i < found.n; i++)
		if (stop_one(cli, found.all[i].name, err) < 0)
			return -1;
	if (error_is_set(&found.silent)) { /* the others are gone */
		*err = found.silent;
		return -1;
	}
	if (!cli->json) {
		output_notes(cli, found.notes ? found.notes : "");
		return EXIT_SUCCESS;
	}
	struct json json = output_json();

	json_object(&json);
	json_array(json_key(&json, "stopped"));
	for (size_t i = 0; i < found.n; i++)
		json_string(&json, found.all[i].name);
	if (!cli->all)
		json_string(&json, cli->words[1]);
	json_close(&json);
	json_close(&json);
	json_finish(&json);
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

/* Checked here, where they are; there they have other numbers. */
static int hand_over(const struct cli *cli, int *sources, unsigned *n, struct fsnap_error *err)
{
	const struct fsnap_restore_options said = { .fd = cli->fds, .external = cli->externals };
	struct handed handed = { 0 };
	int result = handed_open(&handed, &said, err);

	*n = (unsigned)handed.n;
	if (result == 0 && *n > TEMPLATE_HANDED)
		result = fail(err, FSNAP_E_USAGE, 0, "%u descriptors: a template takes %d at most", *n, TEMPLATE_HANDED);
	for (unsigned i = 0; result == 0 && i < *n; i++)
		sources[i] = handed.list[i].source;
	handed_close(&handed);
	return result;
}

static int copy(const struct cli *cli, struct fsnap_error *err)
{
	struct template_answer told;
	int handed[TEMPLATE_HANDED];
	unsigned n, n_handed;

	if (cli->n_words < 2)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap template copy needs a name");
	if (clones_count(cli->clones, &n, err) < 0 || hand_over(cli, handed, &n_handed, err) < 0)
		return -1;
	cleanup_fd int line = template_reach(cli, cli->words[1], err);
	cleanup_free struct fsnap_restore_report *reports = calloc(n, sizeof(*reports));
	if (line < 0)
		return -1;
	if (!reports)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%u copies", n);
	if (!template_ask(line, TEMPLATE_COPY, cli->argc, cli->argv, handed, n_handed))
		return fail(err, FSNAP_E_SYSTEM, errno, "asking template %s", cli->words[1]);
	for (unsigned i = 0; i < n; i++) {
		if (template_hear(line, TEMPLATE_COPY, &told, err) < 0)
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
		int most; /* words */
	} verbs[] = { { "start", start, 2 }, { "list", list, 1 }, { "copy", copy, 2 }, { "stop", stop, 2 } };

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(cli->words[0], verbs[i].word) != 0)
			continue;
		if (cli->n_words > verbs[i].most)
			return fail(err, FSNAP_E_USAGE, 0, "fsnap template %s: '%s' is one word too many", verbs[i].word,
				    cli->words[verbs[i].most]);
		return verbs[i].run(cli, err);
	}
	fail(err, FSNAP_E_USAGE, 0, "fsnap template %s: there is no such thing to be done", cli->words[0]);
	return error_hint(err, "say fsnap template start, list, copy or stop");
}
