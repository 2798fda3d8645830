#include "engine/cli/origin.h"

#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store/scope.h"
#include "store/store.h"

static const struct subject {
	const char *name;
	const char *what, *one; /* in a sentence: all of it, one of its words */
} subjects[] = {
	{ "run.command", "the command", "a word of the command" },
	{ "run.directory", "the working directory", "the working directory" },
	{ "run.ready", "what says that it is ready", "what says that it is ready" },
	{ "run.with", "what goes with it", "a directory that goes with it" },
	{ "run.encrypted", "how it is stored", "how it is stored" },
	{ "run.env", "what it depends on", "a variable that it depends on" },
	{ "run.file", "what it depends on", "a file that it depends on" },
};

#define STREAMS "run.streams"

/* --- what it is made from now ----------------------------------------------------------------- */

static int add(struct origin *origin, const char *name, const char *value, struct fsnap_error *err)
{
	char **more = reallocarray(origin->labels, origin->n + 2, sizeof(*more));

	if (more)
		origin->labels = more;
	if (!more || asprintf(&more[origin->n], "%s=%s", name, value) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "what the image is made from");
	more[++origin->n] = NULL;
	return 0;
}

/* As make(1) does it: another size, or another time of its last change, is another content. */
static int add_file(struct origin *origin, const char *path, struct fsnap_error *err)
{
	char text[4096 + 128];
	struct stat st;

	if (stat(path, &st) < 0)
		snprintf(text, sizeof(text), "%.4096s (%s)", path, strerror(errno));
	else
		snprintf(text, sizeof(text), "%.4096s (%lld bytes, changed at %lld.%09ld)", path, (long long)st.st_size,
			 (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	return add(origin, "run.file", text, err);
}

/* Where execvp(3) finds it; false: nowhere. */
static bool find_program(const char *word, char *path, size_t size)
{
	const char *dirs = getenv("PATH");

	if (strchr(word, '/'))
		return (size_t)snprintf(path, size, "%s", word) < size && access(path, X_OK) == 0;
	for (const char *at = dirs ? dirs : "/bin:/usr/bin"; *at; at += *at == ':') {
		int length = (int)strcspn(at, ":");
		snprintf(path, size, "%.*s%s%s", length, at, length ? "/" : "./", word);
		if (access(path, X_OK) == 0)
			return true;
		at += length;
	}
	return false;
}

/* The image knows of what build a program is (engine/build_id.h), but not what an interpreter has read. */
static int add_program(struct origin *origin, const char *word, struct fsnap_error *err)
{
	char path[4096], begin[2] = "";
	cleanup_file FILE *file = find_program(word, path, sizeof(path)) ? fopen(path, "re") : NULL;

	if (!file || fread(begin, 1, 2, file) != 2 || memcmp(begin, "#!", 2) != 0)
		return 0;
	return add_file(origin, path, err);
}

/* NAME, or NAME=VALUE, which has been put into our environment by now. */
static int add_variable(struct origin *origin, const char *word, struct fsnap_error *err)
{
	size_t length = strcspn(word, "=");
	cleanup_free char *name = strndup(word, length), *text = NULL;
	const char *value = name ? getenv(name) : NULL;

	if (!name || asprintf(&text, value ? "%s=%s" : "%s", name, value) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--env");
	return add(origin, "run.env", text, err);
}

static int add_ready(struct origin *origin, const struct cli *cli, struct fsnap_error *err)
{
	cleanup_free char *text = NULL;

	if (asprintf(&text, "%s %s", cli->ready_fd ? "--ready-fd" : cli->ready_port ? "--ready-port" : "--ready-line",
		     cli->ready_fd ? cli->ready_fd : cli->ready_port ? cli->ready_port :
		     cli->ready_line ? cli->ready_line : "") < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "what says that it is ready");
	return add(origin, "run.ready", text, err);
}

int origin_describe(struct origin *origin, const struct cli *cli, struct fsnap_error *err)
{
	cleanup_free char *directory = getcwd(NULL, 0);
	int result = add(origin, "run.directory", directory ? directory : "(unreachable)", err);

	for (int i = 0; i < cli->n_words && result == 0; i++)
		result = add(origin, "run.command", cli->words[i], err);
	if (result == 0)
		result = add_ready(origin, cli, err);
	for (const char **at = cli->withs; at && *at && result == 0; at++)
		result = add(origin, "run.with", *at, err);
	for (const char **at = cli->envs; at && *at && result == 0; at++)
		result = add_variable(origin, *at, err);
	if (result == 0 && cli->encrypt)
		result = add(origin, "run.encrypted", "--encrypt", err);
	if (result == 0)
		result = add_program(origin, cli->words[0], err);
	for (const char **at = cli->depends; at && *at && result == 0; at++)
		result = add_file(origin, *at, err);
	return result;
}

int origin_add_streams(struct origin *origin, pid_t program, struct fsnap_error *err)
{
	char text[4] = "", *end = text;

	for (int fd = 0; fd < 3; fd++)
		if (syscall(SYS_kcmp, getpid(), program, KCMP_FILE, fd, fd) == 0)
			*end++ = (char)('0' + fd);
	return add(origin, STREAMS, text, err);
}

void origin_free(struct origin *origin)
{
	for (size_t i = 0; i < origin->n; i++)
		free(origin->labels[i]);
	free(origin->labels);
	*origin = (struct origin){ 0 };
}

/* --- and what it was made from ------------------------------------------------------------------- */

/* The value of the i-th label of that name; NULL: there are not so many. */
static const char *value_now(const struct origin *now, const char *name, size_t i)
{
	size_t length = strlen(name);

	for (size_t k = 0; k < now->n; k++)
		if (strncmp(now->labels[k], name, length) == 0 && now->labels[k][length] == '=' && i-- == 0)
			return now->labels[k] + length + 1;
	return NULL;
}

static const char *value_then(const image_labels *then, const char *name, size_t i)
{
	for (u_int k = 0; k < then->labels.labels_len; k++)
		if (strcmp(then->labels.labels_val[k].name, name) == 0 && i-- == 0)
			return then->labels.labels_val[k].value;
	return NULL;
}

/* The first thing that differs. */
static bool tell_difference(const struct origin *now, const image_labels *then, const struct subject *subject,
			    char *text, size_t size)
{
	for (size_t i = 0;; i++) {
		const char *new = value_now(now, subject->name, i), *old = value_then(then, subject->name, i);

		if (!new && !old)
			return false;
		if (new && old && strcmp(new, old) == 0)
			continue;
		if (new && old)
			snprintf(text, size, "%s was `%.180s`, now it is `%.180s`", subject->one, old, new);
		else
			snprintf(text, size, "%s: `%.200s` %s", subject->what, new ? new : old, new ? "is new" : "is gone");
		return true;
	}
}

int origin_compare(const struct origin *now, const struct image *image, struct origin_found *found,
		   struct fsnap_error *err)
{
	image_labels then = { 0 };

	*found = (struct origin_found){ 0 };
	if (image_count(image, IMAGE_LABELS) == 0)
		return 0;
	if (image_get(image, IMAGE_LABELS, 0, (xdrproc_t)xdr_image_labels, &then, err) < 0)
		return -1;
	const char *streams = value_then(&then, STREAMS, 0);
	for (int fd = 0; fd < 3; fd++)
		found->streams[fd] = streams && strchr(streams, '0' + fd);
	found->made_by_run = streams != NULL;
	for (size_t i = 0; i < sizeof(subjects) / sizeof(*subjects); i++)
		if (tell_difference(now, &then, &subjects[i], found->differs, sizeof(found->differs)))
			break;
	xdr_free((xdrproc_t)xdr_image_labels, (char *)&then);
	return 0;
}
