#include "engine/handed.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/restore.h"

/* --- the options ---------------------------------------------------------------- */

static bool number(const char **at, int *value)
{
	char *end;
	errno = 0;
	long n = strtol(*at, &end, 10);
	if (errno || end == *at || n < 0 || n > INT_MAX)
		return false;
	*at = end;
	*value = (int)n;
	return true;
}

static int bad(const struct hand *hand, struct fsnap_error *err)
{
	if (hand->key) {
		fail(err, FSNAP_E_USAGE, 0, "--external %s says no descriptor", hand->word);
		return error_hint(err, "say --external KEY=M: M is a descriptor that fsnap has, KEY what the dump "
				       "was told");
	}
	fail(err, FSNAP_E_USAGE, 0, "--fd %s is no pair of descriptors", hand->word);
	return error_hint(err, "say --fd N=M or --fd PID:N=M: descriptor N of the program becomes what fsnap has "
			       "as M");
}

static int check_open(const struct hand *hand, struct fsnap_error *err)
{
	if (fcntl(hand->source, F_GETFD) >= 0)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "%s %s: descriptor %d is not open here", hand->key ? "--external" : "--fd",
	     hand->word, hand->source);
	return error_hint(err, "open it for fsnap, as a shell does: fsnap restore ... %d<FILE", hand->source);
}

static int parse_fd(struct hand *hand, struct fsnap_error *err)
{
	const char *at = hand->word;
	if (!number(&at, &hand->fd))
		return bad(hand, err);
	if (*at == ':') {
		hand->pid = hand->fd;
		at++;
		if (hand->pid == 0 || !number(&at, &hand->fd))
			return bad(hand, err);
	}
	if (*at++ != '=' || !number(&at, &hand->source) || *at)
		return bad(hand, err);
	return check_open(hand, err);
}

static int parse_external(struct hand *hand, struct fsnap_error *err)
{
	const char *equals = strrchr(hand->word, '=');
	hand->key = hand->word;
	if (!equals || equals == hand->word)
		return bad(hand, err);
	hand->key_length = (size_t)(equals - hand->word);
	equals++;
	if (!number(&equals, &hand->source) || *equals)
		return bad(hand, err);
	return check_open(hand, err);
}

static size_t count(const char *const *words)
{
	size_t n = 0;
	while (words && words[n])
		n++;
	return n;
}

/* options.stdio says it without words. */
static int take_stdio(struct handed *handed, const int *stdio, struct fsnap_error *err)
{
	for (int i = 0; i < 3; i++) {
		if (stdio[i] < 0)
			continue;
		struct hand *hand = &handed->list[handed->n++];
		*hand = (struct hand){ .kept = -1, .word = "(stdio)", .stream = true, .fd = i, .source = stdio[i] };
		if (check_open(hand, err) < 0)
			return -1;
	}
	return 0;
}

int handed_open(struct handed *handed, const struct fsnap_restore_options *options, struct fsnap_error *err)
{
	const char *const *fds = options->fd, *const *externals = options->external;
	size_t n_fds = count(fds), n = n_fds + count(externals);
	handed->list = calloc(n + 3 + 1, sizeof(*handed->list));
	if (!handed->list)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--fd");
	for (; handed->n < n; handed->n++) {
		struct hand *hand = &handed->list[handed->n];
		bool by_number = handed->n < n_fds;
		*hand = (struct hand){ .kept = -1,
				       .word = by_number ? fds[handed->n] : externals[handed->n - n_fds] };
		if ((by_number ? parse_fd(hand, err) : parse_external(hand, err)) < 0)
			return -1;
	}
	return options->stdio ? take_stdio(handed, options->stdio, err) : 0;
}

void handed_close(struct handed *handed)
{
	for (size_t i = 0; i < handed->n; i++)
		if (handed->list[i].kept >= 0)
			close(handed->list[i].kept);
	free(handed->list);
	*handed = (struct handed){ 0 };
}

/* --- what they are for -------------------------------------------------------------- */

static const image_process *process_of(const struct restore *restore, const struct hand *hand)
{
	return hand->pid ? model_process(&restore->model, hand->pid) : &restore->model.processes[0];
}

static int find_by_number(const struct restore *restore, struct hand *hand, struct fsnap_error *err)
{
	const image_process *process = process_of(restore, hand);
	if (!process) {
		fail(err, FSNAP_E_USAGE, 0, "--fd %s: there is no process %d in the image", hand->word, hand->pid);
		return error_hint(err, "fsnap inspect shows which there are");
	}
	for (u_int i = 0; i < process->fds.fds_len; i++)
		if (process->fds.fds_val[i].fd == hand->fd)
			hand->file = process->fds.fds_val[i].file;
	if (hand->file)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--fd %s: process %d (%s) has no descriptor %d", hand->word, process->pid,
	     process->threads.threads_len ? process->threads.threads_val[0].comm : "?", hand->fd);
	return error_hint(err, "fsnap inspect shows which it has");
}

static int find_by_key(struct restore *restore, struct hand *hand, struct fsnap_error *err)
{
	const image_file *file;
	const image_file_external *state;
	for (size_t i = 0; (state = restore_file_state(restore, "external", i, &file)); i++)
		if (strlen(state->key) == hand->key_length && !memcmp(state->key, hand->key, hand->key_length))
			hand->file = file->id;
	if (hand->file)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--external %s: nothing was declared so when the image was made", hand->word);
	return error_hint(err, "fsnap inspect shows what is external; --fd N=M replaces any descriptor");
}

static int check_access(const struct restore *restore, const struct hand *hand, struct fsnap_error *err)
{
	const image_file *file = &restore->model.files[hand->file - 1];
	int have = fcntl(hand->source, F_GETFL), mode = have & O_ACCMODE, wanted = (int)file->flags & O_ACCMODE;
	/* A standard stream is what its giver has: a terminal then may be a file now, and nohup(1) gives an input that
	 * nobody can read. */
	if (hand->stream || have < 0 || mode == O_RDWR || mode == wanted || ((unsigned)have | file->flags) & O_PATH)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "%s %s: descriptor %d is open for %s, and %s was open for %s",
	     hand->key ? "--external" : "--fd", hand->word, hand->source,
	     mode == O_RDONLY ? "reading" : "writing", file->label,
	     wanted == O_RDONLY ? "reading" : wanted == O_WRONLY ? "writing" : "both");
	return error_hint(err, "open it that way: N<FILE reads, N>>FILE writes, N<>FILE does both");
}

/* Whether calls block is what a program cannot do without; the rest is the giver's. */
static void keep_nonblock(const image_file *file, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags >= 0 && ((flags ^ (int)file->flags) & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags ^ O_NONBLOCK);
}

static int place(struct restore *restore, struct hand *hand, struct fsnap_error *err)
{
	if ((hand->key ? find_by_key(restore, hand, err) : find_by_number(restore, hand, err)) < 0 ||
	    check_access(restore, hand, err) < 0)
		return -1;
	hand->kept = fcntl(hand->source, F_DUPFD_CLOEXEC, restore->bench);
	if (hand->kept < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d", hand->source);
	const image_file *file = &restore->model.files[hand->file - 1];
	struct workshop_file *made = &restore->files[hand->file - 1];
	if (!restore->explaining)
		keep_nonblock(file, hand->kept);
	if (made->fd >= 0 || strcmp(file->kind, "stdio") == 0)
		return 0;
	made->handed = true;
	restore->shelves.loose++;
	made->fd = restore->explaining ? workshop_pretend(restore) :
					 fcntl(hand->kept, F_DUPFD_CLOEXEC, restore->bench);
	return made->fd < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d", hand->source) : 0;
}

int handed_place(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->handed.n; i++)
		if (place(restore, &restore->handed.list[i], err) < 0)
			return -1;
	return 0;
}

int handed_source(const struct restore *restore, pid_t pid, int fd, unsigned file)
{
	int source = -1;
	for (size_t i = 0; i < restore->handed.n; i++) {
		const struct hand *hand = &restore->handed.list[i];
		if (hand->key || hand->file != file || hand->fd != fd)
			continue;
		if (process_of(restore, hand)->pid == pid)
			return hand->kept;
		if (hand->stream || strcmp(restore->model.files[file - 1].kind, "stdio") == 0)
			source = hand->kept;
	}
	return source;
}
