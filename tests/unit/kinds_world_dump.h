/*
 * kinds_world_dump.h - what kinds of files ask of a dump, answered for the world of kinds_world.h, which includes it.
 */
#ifndef KINDS_WORLD_DUMP_H
#define KINDS_WORLD_DUMP_H

int refuse_fd(const struct fd_view *fd, struct fsnap_error *err, const char *hint, const char *what,
	      ...)
{
	char text[256];
	va_list args;
	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);
	(fail)(err, FSNAP_E_UNSUPPORTED, 0, "descriptor %d (%s): %s", fd->fd, fd->link, text);
	return error_hint(err, "%s", hint);
}

const struct tree *dump_tree(struct dump *dump)
{
	return &dump->tree;
}

void **dump_scratch(struct dump *dump, const struct file_kind *kind)
{
	size_t i = 0;
	while (file_kinds[i] != kind)
		i++;
	return &dump->scratch[i];
}

const struct fsnap_dump_options *dump_options(const struct dump *dump)
{
	return &dump->options;
}

char *dump_hold(struct dump *dump)
{
	return dump->hold;
}

static void add_note(const char *format, va_list args)
{
	size_t used = strlen(world.notes);
	vsnprintf(world.notes + used, sizeof(world.notes) - used, format, args);
	strncat(world.notes, "\n", sizeof(world.notes) - strlen(world.notes) - 1);
}

void dump_note(struct dump *dump, const char *format, ...)
{
	(void)dump;
	va_list args;
	va_start(args, format);
	add_note(format, args);
	va_end(args);
}

void dump_linkable(struct dump *dump, unsigned ghost, unsigned flags)
{
	(void)dump;
	(void)ghost;
	(void)flags;
}

const char *dump_external(const struct fd_view *fd)
{
	(void)fd;
	return NULL;
}

int dump_identity(struct dump *dump, struct process *process, int fd, const char *path,
		  image_identity *identity, struct fsnap_error *err)
{
	(void)process;
	(void)err;
	struct stat stat, there;
	fstat(fd, &stat);
	*identity = (image_identity){.path = strdup(path), .mode = stat.st_mode,
				     .size = (uint64_t)stat.st_size};
	if (lstat(path, &there) == 0 && there.st_ino == stat.st_ino)
		return 0;
	dump->ghosts[++dump->n_ghosts] = fcntl(fd, F_DUPFD_CLOEXEC, 500);
	identity->ghost = (unsigned)dump->n_ghosts;
	return 0;
}

unsigned dump_file_of_fd(struct dump *dump, const struct process *process, int fd)
{
	(void)process;
	/* Tests leave the real 0..2 alone: others stand for them. */
	int number = fd >= 0 && fd <= 2 ? dump->stdio[fd] : fd;
	for (size_t i = 0; i < dump->n; i++)
		if (dump->files[i].number == number)
			return dump->files[i].file.id;
	return 0;
}

void *dump_file_state(struct dump *dump, const char *kind, size_t index, image_file **file)
{
	for (size_t i = 0; i < dump->n; i++) {
		if (strcmp(dump->files[i].file.kind, kind) || index--)
			continue;
		if (file)
			*file = &dump->files[i].file;
		return &dump->files[i].state;
	}
	return NULL;
}

void *dump_file_by_id(struct dump *dump, unsigned id, image_file **file)
{
	if (id == 0 || id > dump->n)
		return NULL;
	*file = &dump->files[id - 1].file;
	return &dump->files[id - 1].state;
}

void dump_holder(struct dump *dump, const image_file *file, pid_t *pid, int *fd)
{
	*pid = getpid();
	*fd = dump->files[file->id - 1].number;
}

const struct process *dump_carrier(struct dump *dump, const image_file *file, int *fd)
{
	(void)dump;
	(void)file;
	*fd = -1;
	return NULL;
}

void *dump_file_next(struct dump *dump, const struct file_kind *kind, uint64_t key, size_t *at,
		     image_file **file)
{
	for (void *state; (state = dump_file_state(dump, kind->name, *at, file)); ++*at)
		if (kind->key(state) == key)
			return ++*at, state;
	return NULL;
}

struct peek *dump_peek(struct dump *dump)
{
	if (!dump->peek)
		dump->peek = peek_open();
	return dump->peek;
}

bool fdinfo_number(const char *info, const char *key, int base, uint64_t *value)
{
	char line[64];
	snprintf(line, sizeof(line), "\n%s:", key);
	const char *at = strncmp(info, line + 1, strlen(line + 1)) ? strstr(info, line) : info - 1;
	if (at)
		*value = strtoull(at + strlen(line), NULL, base);
	return at;
}

#endif
