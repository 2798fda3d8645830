/*
 * dump_ask.c - what kinds may ask of a dump: its options, its notes, the other files of the tree.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/kinds/carried.h"
#include "engine/kinds/peek.h"
#include "engine/notes.h"

int refuse_fd(const struct fd_view *fd, struct fsnap_error *err, const char *hint, const char *what, ...)
{
	char text[256];
	va_list args;
	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);
	const struct fd_view *carrier = fd->carrier ? carrier_outermost(fd->carrier) : NULL;
	if (carrier)
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): under way in descriptor %d (%s): %s: %s",
		     carrier->process->pid, carrier->process->comm, carrier->fd, carrier->link, fd->link, text);
	else
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): descriptor %d (%s): %s", fd->process->pid,
		     fd->process->comm, fd->fd, fd->link, text);
	return error_hint(err, "%s", hint);
}

const struct tree *dump_tree(struct dump *dump)
{
	return &dump->tree;
}

void **dump_scratch(struct dump *dump, const struct file_kind *kind)
{
	size_t place = 0;
	while (file_kinds[place] != kind)
		place++;
	return &dump->scratch[place];
}

struct peek *dump_peek(struct dump *dump)
{
	if (!dump->peeked)
		dump->peek = readers_peek(dump);
	dump->peeked = true;
	return dump->peek;
}

const struct fsnap_dump_options *dump_options(const struct dump *dump)
{
	return dump->options;
}

char *dump_hold(struct dump *dump)
{
	return dump->hold;
}

void dump_note(struct dump *dump, const char *format, ...)
{
	static pthread_mutex_t noting = PTHREAD_MUTEX_INITIALIZER; /* finder.c may have something to say, too */
	va_list args;
	va_start(args, format);
	pthread_mutex_lock(&noting);
	notes_add(dump->report->notes, sizeof(dump->report->notes), format, args);
	pthread_mutex_unlock(&noting);
	va_end(args);
}

static int by_number(const void *number, const void *fd)
{
	return *(const int *)number - ((const image_fd *)fd)->fd;
}

unsigned dump_file_of_fd(struct dump *dump, const struct process *process, int fd)
{
	(void)dump;
	const image_fd *found = process->image.fds.fds_len ?
		bsearch(&fd, process->image.fds.fds_val, process->image.fds.fds_len, sizeof(*found), by_number) :
		NULL;
	return found ? found->file : 0;
}

/* Mostly called for one number after the other. A file that became another kind meanwhile is passed over. */
void *dump_file_state(struct dump *dump, const char *kind, size_t index, image_file **file)
{
	struct file_cursor *cursor = &dump->file_cursor;
	const struct file_kind *wanted = file_kind_find(kind);
	if (cursor->kind != wanted || index < cursor->number)
		*cursor = (struct file_cursor){ wanted, 0, 0 };
	for (; cursor->at < dump->n_files; cursor->at++) {
		struct saved_file *saved = dump->files[cursor->at];
		if (strcmp(saved->file.kind, kind) != 0 || cursor->number++ < index)
			continue;
		cursor->number--;
		if (file)
			*file = &saved->file;
		return &saved->state;
	}
	return NULL;
}

void *dump_file_next(struct dump *dump, const struct file_kind *kind, uint64_t key, size_t *at,
		     image_file **file)
{
	for (size_t i; (i = file_keys_next(&dump->file_keys, kind, key, at)) != SIZE_MAX;) {
		struct saved_file *saved = dump->files[i];
		if (strcmp(saved->file.kind, kind->name) != 0)
			continue;
		if (file)
			*file = &saved->file;
		return &saved->state;
	}
	return NULL;
}

void *dump_file_by_id(struct dump *dump, unsigned id, image_file **file)
{
	if (id == 0 || id > dump->n_files)
		return NULL;
	if (file)
		*file = &dump->files[id - 1]->file;
	return &dump->files[id - 1]->state;
}

void dump_holder(struct dump *dump, const image_file *file, pid_t *pid, int *fd)
{
	*pid = dump->files[file->id - 1]->pid;
	*fd = dump->files[file->id - 1]->fd;
}

const struct process *dump_carrier(struct dump *dump, const image_file *file, int *fd)
{
	*fd = dump->files[file->id - 1]->carrier_fd;
	return dump->files[file->id - 1]->carrier;
}

bool fdinfo_number(const char *info, const char *key, int base, uint64_t *value)
{
	size_t length = strlen(key);
	for (const char *line = info; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) != 0 || line[length] != ':')
			continue;
		*value = strtoull(line + length + 1, NULL, base);
		return true;
	}
	return false;
}
