/*
 * kinds_world.h - a stand-in for the engine around the table of kinds, in one process.
 *
 *	world_save(n, fds)	as a dump: view, match, save, link
 *	world_close()		the originals go away
 *	world_make()		as a restore, each at the number it had
 *
 * Every state passes through XDR in between. What a test closes before
 * world_save is what an outsider, or nobody, holds.
 */
#ifndef TESTS_UNIT_KINDS_WORLD_H
#define TESTS_UNIT_KINDS_WORLD_H

#include <fcntl.h>
#include <linux/kcmp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/kinds.h"
#include "engine/kinds/locks.h"
#include "engine/kinds/peek.h"
#include "engine/kinds/sockopt.h"

#include <cmocka.h> /* last: its fail() is a macro */

#define WORLD_FILES 64
#define WORLD_KINDS 64

struct world_file {
	image_file file;
	union file_state state;
	int number; /* of the descriptor */
	int made;
};

struct dump {
	struct process process;
	struct process *processes[1];
	struct tree tree;
	struct world_file files[WORLD_FILES];
	size_t n;
	image_fd fds[WORLD_FILES];
	void *scratch[WORLD_KINDS];
	void *workshop[WORLD_KINDS]; /* scratch of the restore */
	int ghosts[WORLD_FILES]; /* our own descriptors of what has no name; [0] unused */
	size_t n_ghosts;
	char notes[4096];
	struct peek *peek;
	struct fsnap_dump_options options;
	char hold[32];
	int stdio[3]; /* descriptors that are the root's 0, 1, 2; -1: none */
};

struct restore {
	struct dump *saved;
	void *scratch[WORLD_KINDS];
};

static struct dump world;
static struct fsnap_error world_error;

/* What kinds ask for; its declarations are those of kinds.h. */
#include "kinds_world_dump.h"
#include "kinds_world_restore.h"

/* --- saving ------------------------------------------------------------------- */

static char *read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, text, size - 1);
	text[got < 0 ? 0 : got] = '\0';
	close(fd);
	return text;
}

/* `number`: of a test's descriptor, or of one that a message carried. */
static int save_one(int number, const struct fd_view *carrier)
{
	char path[64], link[4096], info[4096];
	uint64_t flags = 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
	ssize_t length = readlink(path, link, sizeof(link) - 1);
	link[length < 0 ? 0 : length] = '\0';
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", number);
	struct fd_view view = {.dump = &world, .process = &world.process, .pid = getpid(), .fd = number,
			       .dup = fcntl(number, F_DUPFD_CLOEXEC, 400), .link = link,
			       .info = read_text(path, info, sizeof(info)), .carrier = carrier};
	fstat(view.dup, &view.stat);
	view.socket = socket_sort_of(S_ISSOCK(view.stat.st_mode) ? view.dup : -1);
	fdinfo_number(info, "flags", 8, &flags);
	fdinfo_number(info, "pos", 10, &view.pos);
	view.flags = (unsigned)flags & ~(unsigned)O_CLOEXEC;

	size_t i = 0;
	while (!file_kinds[i]->matches(&view))
		i++;
	struct world_file *entry = &world.files[world.n++];
	*entry = (struct world_file){.number = number, .made = -1};
	entry->file = (image_file){.id = (unsigned)world.n, .kind = strdup(file_kinds[i]->name),
				   .flags = view.flags, .pos = view.pos, .label = strdup(link)};
	world.fds[world.n - 1] = (image_fd){.fd = number, .file = entry->file.id};
	world.process.image.fds.fds_len = (unsigned)world.n;
	int result = locks_save(&view, &entry->file, &world_error);
	if (result == 0)
		result = file_kinds[i]->save(&view, &entry->file, &entry->state, &world_error);
	close(view.dup);
	return result;
}

static unsigned known_file(int fd)
{
	for (size_t i = 0; i < world.n; i++)
		if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fd, world.files[i].number) == 0)
			return world.files[i].file.id;
	return 0;
}

unsigned dump_received(const struct fd_view *carrier, int fd, struct fsnap_error *err)
{
	(void)err;
	unsigned id = known_file(fd);
	int kept = id ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 700);
	close(fd);
	if (id)
		return id;
	id = (unsigned)world.n + 1;
	return save_one(kept, carrier) < 0 ? 0 : id;
}

static void through_xdr(struct world_file *entry)
{
	static char buffer[1 << 22];
	xdrproc_t proc = file_kind_find(entry->file.kind)->xdr;
	XDR xdr;
	xdrmem_create(&xdr, buffer, sizeof(buffer), XDR_ENCODE);
	assert_true(proc(&xdr, &entry->state));
	xdr_free(proc, (void *)&entry->state);
	memset(&entry->state, 0, sizeof(entry->state));
	xdrmem_create(&xdr, buffer, sizeof(buffer), XDR_DECODE);
	assert_true(proc(&xdr, &entry->state));
}

/* A file that a message showed first has a number after all. */
static void number_file(unsigned id, int number)
{
	struct world_file *entry = &world.files[id - 1];
	if (entry->number == number)
		return;
	close(entry->number);
	entry->number = world.fds[id - 1].fd = number;
}

static int world_save(size_t n, const int *fds)
{
	for (size_t i = 0; i < n; i++) {
		unsigned id = known_file(fds[i]);
		if (id)
			number_file(id, fds[i]);
		else if (save_one(fds[i], NULL) < 0)
			return -1;
	}
	for (size_t i = 0; i < world.n; i++) {
		struct world_file *entry = &world.files[i];
		const struct file_kind *kind = file_kind_find(entry->file.kind);
		if (kind->save_links &&
		    kind->save_links(&world, &entry->file, &entry->state, &world_error) < 0)
			return -1;
	}
	for (size_t i = 0; i < world.n; i++)
		through_xdr(&world.files[i]);
	return 0;
}

/* As the engine does: kinds by their place in the table. */
static void end_scratch(void **scratch, bool dumped)
{
	for (size_t i = 0; file_kinds[i]; i++) {
		void (*end)(void *) = dumped ? file_kinds[i]->dump_end : file_kinds[i]->restore_end;
		if (scratch[i] && end)
			end(scratch[i]);
		free(scratch[i]);
		scratch[i] = NULL;
	}
}

static void world_close(void)
{
	for (size_t i = 0; file_kinds[i]; i++)
		if (world.scratch[i] && file_kinds[i]->silence)
			file_kinds[i]->silence(&world, &world_error);
	end_scratch(world.scratch, true);
	for (size_t i = 0; i < world.n; i++)
		close(world.files[i].number);
}

/* --- making -------------------------------------------------------------------- */

static int make_all(struct restore *restore)
{
	const int settable = O_APPEND | O_NONBLOCK | O_DIRECT;
	for (size_t i = 0; i < world.n; i++) {
		struct world_file *entry = &world.files[i];
		const struct file_kind *kind = file_kind_find(entry->file.kind);
		if (entry->made < 0)
			entry->made = kind->make(restore, &entry->file, &entry->state, &world_error);
		if (entry->made < 0)
			return -1;
		if (locks_take(&entry->file, entry->made, &world_error) < 0)
			return -1;
		if (kind->own_flags)
			continue;
		fcntl(entry->made, F_SETFL, (int)entry->file.flags & settable);
		if (entry->file.pos)
			lseek(entry->made, (off_t)entry->file.pos, SEEK_SET);
	}
	for (int rank = 0; rank <= 2; rank++)
		for (size_t i = 0; i < world.n; i++) {
			struct world_file *entry = &world.files[i];
			const struct file_kind *kind = file_kind_find(entry->file.kind);
			if (kind->connect && kind->connect_rank == rank &&
			    kind->connect(restore, &entry->file, &entry->state, entry->made,
					  &world_error) < 0)
				return -1;
		}
	return 0;
}

/* The originals must be closed: what is made takes their numbers. */
static int world_make(void)
{
	struct restore restore = {.saved = &world};
	int result = make_all(&restore);
	for (size_t i = 0; i < WORLD_KINDS; i++)
		free(restore.scratch[i]);
	if (result < 0)
		return -1;
	for (size_t i = 0; file_kinds[i]; i++)
		if (world.workshop[i] && file_kinds[i]->release)
			file_kinds[i]->release(&restore);
	int aside[WORLD_FILES];
	for (size_t i = 0; i < world.n; i++) {
		aside[i] = fcntl(world.files[i].made, F_DUPFD_CLOEXEC, 600);
		close(world.files[i].made);
	}
	for (size_t i = 0; i < world.n; i++) {
		dup2(aside[i], world.files[i].number);
		close(aside[i]);
	}
	return 0;
}

/* --- for tests -------------------------------------------------------------------- */

static void check(int result)
{
	if (result < 0)
		print_error("%s (%s)\n", world_error.message, world_error.hint);
	assert_int_equal(result, 0);
}

/* One dump, the end of the originals, one restore. */
static void world_round(size_t n, const int *fds)
{
	check(world_save(n, fds));
	world_close();
	check(world_make());
}

static int world_setup(void **state)
{
	(void)state;
	world = (struct dump){.stdio = {-1, -1, -1}, .options.kill = 1};
	world_error = (struct fsnap_error){0};
	world.process.pid = world.process.live = getpid();
	world.process.proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	strcpy(world.process.comm, "test");
	world.process.image.fds.fds_val = world.fds;
	world.processes[0] = &world.process;
	world.tree = (struct tree){.processes = world.processes, .n_processes = 1};
	return 0;
}

static int world_teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < world.n; i++) {
		struct world_file *entry = &world.files[i];
		close(entry->number);
		xdr_free(file_kind_find(entry->file.kind)->xdr, (void *)&entry->state);
		xdr_free((xdrproc_t)xdr_image_file, (void *)&entry->file);
	}
	for (size_t i = 1; i <= world.n_ghosts; i++)
		close(world.ghosts[i]);
	end_scratch(world.scratch, true);
	end_scratch(world.workshop, false);
	close(world.process.proc);
	peek_close(world.peek);
	return 0;
}

#define in_world(test) cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)

#endif
