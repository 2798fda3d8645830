/*
 * kinds_world_restore.h - what kinds of files ask of a restore, answered for the world of kinds_world.h, which includes it.
 */
#ifndef KINDS_WORLD_RESTORE_H
#define KINDS_WORLD_RESTORE_H

int restore_ghost(struct restore *restore, unsigned id, unsigned flags, struct fsnap_error *err)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", restore->saved->ghosts[id]);
	int fd = open(path, (int)flags);
	return fd < 0 ? (fail)(err, FSNAP_E_SYSTEM, errno, "ghost") : fd;
}

int restore_open(struct restore *restore, const image_identity *identity, unsigned flags,
		 struct fsnap_error *err)
{
	if (identity->ghost)
		return restore_ghost(restore, identity->ghost, flags, err);
	int fd = open(identity->path, (int)flags);
	return fd < 0 ? (fail)(err, FSNAP_E_FILE_MISSING, errno, "%s", identity->path) : fd;
}

int restore_remap(struct restore *restore, char **path, struct fsnap_error *err)
{
	(void)restore;
	(void)path;
	(void)err;
	return 0;
}

int restore_may_use(struct restore *restore, const char *path, struct fsnap_error *err)
{
	(void)restore;
	(void)path;
	(void)err;
	return 0;
}

/* No port is moved here. */
void restore_move_port(struct restore *restore, char *address, unsigned length)
{
	(void)restore;
	(void)address;
	(void)length;
}

uint16_t restore_port_before(const struct restore *restore, uint16_t port)
{
	(void)restore;
	return port;
}

int restore_time_namespace(const struct restore *restore)
{
	(void)restore;
	return -1;
}

int restore_fd(struct restore *restore, unsigned id)
{
	return restore->saved->files[id - 1].made;
}

/* Nobody is born here. */
bool restore_is_late(struct restore *restore, unsigned id)
{
	(void)restore;
	(void)id;
	return false;
}

bool restore_is_held(const struct restore *restore, unsigned id)
{
	(void)restore;
	(void)id;
	return true;
}

int restore_arrived(struct restore *restore, unsigned id, unsigned carrier, struct fsnap_error *err)
{
	(void)carrier;
	(void)err;
	return restore_fd(restore, id);
}

int restore_number_of(struct restore *restore, unsigned id)
{
	return restore_fd(restore, id);
}

int restore_spare_number(struct restore *restore, unsigned id)
{
	(void)restore;
	return 1000 + (int)id;
}

uint32_t restore_deputy(struct restore *restore, struct plans *plans, uint32_t task, pid_t tid)
{
	(void)restore;
	(void)plans;
	(void)tid;
	return task;
}

void restore_deputy_done(struct plans *plans, uint32_t task, uint32_t deputy)
{
	(void)plans;
	(void)task;
	(void)deputy;
}

int restore_memory(struct restore *restore, pid_t pid, struct fsnap_error *err)
{
	(void)restore;
	(void)pid;
	(void)err;
	return -1;
}

uint64_t restore_shared(struct restore *restore, uint32_t data)
{
	(void)restore;
	return data;
}

pid_t restore_number(const struct restore *restore, int number)
{
	(void)restore;
	return number;
}

int restore_blame(struct restore *restore, const image_file *file, struct fsnap_error *err)
{
	(void)restore;
	(void)file;
	(void)err;
	return -1;
}

void restore_not_made(struct restore *restore)
{
	(void)restore;
}

void restore_takes_back(struct restore *restore, void (*remove)(const char *name), const char *name)
{
	(void)restore;
	(void)remove;
	(void)name;
}

void restore_give(struct restore *restore, unsigned id, int fd)
{
	/* As the engine does: the number it was given with is free again. */
	restore->saved->files[id - 1].made = fcntl(fd, F_DUPFD_CLOEXEC, 400);
	close(fd);
}

const void *restore_file_state(struct restore *restore, const char *kind, size_t index,
			       const image_file **file)
{
	image_file *found;
	const void *state = dump_file_state(restore->saved, kind, index, &found);
	if (state)
		*file = found;
	return state;
}

const void *restore_file_by_id(struct restore *restore, unsigned id, const image_file **file)
{
	image_file *found;
	const void *state = dump_file_by_id(restore->saved, id, &found);
	if (state)
		*file = found;
	return state;
}

const void *restore_file_next(struct restore *restore, const struct file_kind *kind, uint64_t key,
			      size_t *at, const image_file **file)
{
	image_file *found;
	const void *state = dump_file_next(restore->saved, kind, key, at, &found);
	if (state && file)
		*file = found;
	return state;
}

void **restore_scratch(struct restore *restore, const struct file_kind *kind)
{
	size_t i = 0;
	while (file_kinds[i] != kind)
		i++;
	return &restore->saved->workshop[i];
}

const struct fsnap_restore_options *restore_options(const struct restore *restore)
{
	(void)restore;
	static const struct fsnap_restore_options none = {.size = sizeof(none)};
	return &none;
}

/* Rings of io_uring are shown by specimens: what is read of them needs a process of its own. */
uint64_t restore_mapped(struct restore *restore, pid_t tid, unsigned file_id, uint64_t offset, uint64_t size)
{
	(void)restore;
	(void)tid;
	(void)file_id;
	(void)offset;
	(void)size;
	return 0;
}

const char *restore_hold(const struct restore *restore)
{
	return restore->saved->hold;
}

bool restore_is_beside(const struct restore *restore)
{
	(void)restore;
	return false;
}

void restore_note(struct restore *restore, const char *format, ...)
{
	(void)restore;
	va_list args;
	va_start(args, format);
	add_note(format, args);
	va_end(args);
}

#endif
