/*
 * "stdio": the tree's connection to the outside.  Terminals, and pipes and
 * sockets on the root's first three descriptors whose other end is nobody's in
 * the tree (their kinds decide that and call stdio_become).
 *
 * Restored as a duplicate of what the restoring process has there, so the tree
 * shares position and flags with it as any program shares them with its shell.
 */
#include <asm/termbits.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* Documentation/admin-guide/devices.txt; drivers with numbers of their own are known by name. */
bool is_terminal(const struct fd_view *fd)
{
	if (!S_ISCHR(fd->stat.st_mode) || (fd->flags & O_PATH))
		return false;
	unsigned number = major(fd->stat.st_rdev);
	if (number == 4 || (number >= 136 && number <= 143))
		return true;
	if (number == 5)
		return minor(fd->stat.st_rdev) != 2; /* /dev/ptmx */
	return !strncmp(fd->link, "/dev/tty", 8) || !strncmp(fd->link, "/dev/hvc", 8);
}

static int stdio_save(const struct fd_view *fd, image_file *file, void *out,
		      struct fsnap_error *err)
{
	(void)file;
	image_file_stdio *state = out;
	state->terminal = 1;
	struct termios2 termios;
	if (fd->dup < 0 || ioctl(fd->dup, TCGETS2, &termios) < 0)
		return 0; /* hung up: there are no settings */
	return set_bytes(&state->termios.termios_len, &state->termios.termios_val, &termios,
			 sizeof(termios), err);
}

static int stdio_save_links(struct dump *dump, image_file *file, void *out,
			    struct fsnap_error *err)
{
	(void)err;
	image_file_stdio *state = out;
	int number = stdio_number(dump, file);
	if (state->terminal && number > 0)
		state->number = number;
	return 0;
}

int stdio_number(struct dump *dump, const image_file *file)
{
	const struct process *root = dump_tree(dump)->processes[0];
	for (int fd = 0; fd <= 2; fd++)
		if (dump_file_of_fd(dump, root, fd) == file->id)
			return fd;
	return -1;
}

int stdio_become(image_file *file, void *out, int number, struct fsnap_error *err)
{
	char *name = strdup(kind_stdio.name);
	if (!name)
		return no_memory(err);
	xdr_free(file_kind_find(file->kind)->xdr, out);
	memset(out, 0, sizeof(union file_state));
	free(file->kind);
	file->kind = name;
	((image_file_stdio *)out)->number = number;
	return 0;
}

/* A terminal goes to a terminal, wherever the restoring process has one. */
static int source_for(const image_file_stdio *state)
{
	if (state->terminal && !isatty(state->number))
		for (int fd = 0; fd <= 2; fd++)
			if (isatty(fd))
				return fd;
	return state->number;
}

int stdio_source(const image_file_stdio *state, int fd)
{
	if (!state->terminal || fd < 0 || fd > 2 || fcntl(fd, F_GETFD) < 0)
		return -1;
	int source = source_for(state);
	bool together = fd == source || (isatty(fd) && isatty(source));
	return together ? -1 : fd;
}

/* A program that had the terminal raw, or the echo off, finds it so; not if somebody else has it. */
static void restore_termios(struct restore *restore, const image_file_stdio *state, int fd)
{
	struct termios2 now;
	pid_t foreground;
	if (state->termios.termios_len != sizeof(now) || ioctl(fd, TCGETS2, &now) < 0)
		return;
	if (!memcmp(&now, state->termios.termios_val, sizeof(now)))
		return;
	if (ioctl(fd, TIOCGPGRP, &foreground) < 0 || foreground != getpgrp())
		restore_note(restore, "the terminal's settings are not put back: another job has it");
	else if (ioctl(fd, TCSETS2, state->termios.termios_val) == 0)
		restore_note(restore, "the terminal's settings are those of the saved program");
}

/* The flags are shared with whoever started us. Only one of them changes how reads and writes
 * behave so much that a program could not go on. */
static void restore_nonblock(struct restore *restore, const image_file *file, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || !((flags ^ (int)file->flags) & O_NONBLOCK))
		return;
	if (fcntl(fd, F_SETFL, flags ^ O_NONBLOCK) == 0)
		restore_note(restore, "standard stream is %s now, as the saved program had it",
			     file->flags & O_NONBLOCK ? "non-blocking" : "blocking");
}

/* One of O_PATH keeps the number of a closed one (cli/main.c). */
static bool is_open(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags >= 0 && !(flags & O_PATH);
}

static int stdio_make(struct restore *restore, const image_file *file, const void *in,
		      struct fsnap_error *err)
{
	const image_file_stdio *state = in;
	if (state->number < 0 || state->number > 2)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u (%s): standard stream %d", file->id,
			    file->label, state->number);
	int source = source_for(state);
	bool closed = !is_open(source);
	cleanup_fd int fd = closed ? -1 : fcntl(source, F_DUPFD_CLOEXEC, 3);
	if (closed) {
		restore_note(restore, "descriptor %d is closed here: the tree has /dev/null instead",
			     source);
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	}
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: standard stream %d",
			    file->id, source);
	if (state->terminal)
		restore_termios(restore, state, fd);
	restore_nonblock(restore, file, fd);
	return steal_fd(&fd);
}

const struct file_kind kind_stdio = {
	.name = "stdio",
	.keeps = "the place of the root's standard streams; terminal settings, O_NONBLOCK",
	.shown_by = "terminal",
	.xdr = (xdrproc_t)xdr_image_file_stdio,
	.own_flags = true,
	.matches = is_terminal,
	.save = stdio_save,
	.save_links = stdio_save_links,
	.make = stdio_make,
};
