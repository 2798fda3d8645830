/*
 * workshop.c - room for all that the tasks inherit, and the order in which it is made.
 *
 * Where plans are only to be shown, nothing is made: files that lie there are looked at, and everything else is a number
 * that stands for a descriptor.
 *
 * The bench begins above the highest descriptor of the tree: what lies there is in nobody's way when the tasks
 * move theirs to their numbers.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/clocks.h"
#include "engine/keeper.h"
#include "engine/machine.h"
#include "engine/restore.h"
#include "store/scope.h"

#define PRETENDED 16 /* behind those that are open all the same */

/* --- the bench ------------------------------------------------------------------ */

static int no_room(struct fsnap_error *err)
{
	fail(err, FSNAP_E_SYSTEM, errno, "the limit on open files");
	return error_hint(err, "raise it: ulimit -n");
}

int workshop_keep(struct restore *restore, int fd, struct fsnap_error *err)
{
	return restore->shelves.needed && !restore->explaining ? fd : workshop_bench(restore, fd, err);
}

int workshop_pretend(struct restore *restore)
{
	return restore->bench + PRETENDED + restore->pretended++;
}

int workshop_bench(struct restore *restore, int fd, struct fsnap_error *err)
{
	if (restore->explaining && fd >= 0) {
		close(fd);
		return workshop_pretend(restore);
	}
	if (fd < 0 || fd >= restore->bench)
		return fd;
	int kept = fcntl(fd, F_DUPFD_CLOEXEC, restore->bench);
	if (kept < 0)
		no_room(err);
	close(fd);
	return kept;
}

static int highest_fd(const struct model *model)
{
	int highest = 2;
	for (size_t i = 0; i < model->n_processes; i++)
		for (u_int j = 0; j < model->processes[i].fds.fds_len; j++)
			if (model->processes[i].fds.fds_val[j].fd > highest)
				highest = model->processes[i].fds.fds_val[j].fd;
	return highest;
}

/* --- the whole workshop ------------------------------------------------------------------------- */

/* Made when the first file needs it; nothing else does. */
static bool is_file_ghost(const image_ghost *ghost)
{
	return ghost->kind == GHOST_DELETED || ghost->kind == GHOST_DIRECTORY;
}

/* The files have it now, and tasks need not inherit it. */
static void drop_file_ghosts(struct restore *restore)
{
	for (size_t i = 0; i < restore->model.n_ghosts; i++) {
		const image_ghost *ghost = &restore->model.ghosts[i];
		int *fd = &restore->ghost_fd[ghost->id];
		if (!is_file_ghost(ghost) || *fd < 0)
			continue;
		close(*fd);
		*fd = -1;
	}
}

static int *descriptors(size_t n)
{
	int *fds = malloc((n + 1) * sizeof(*fds));
	for (size_t i = 0; fds && i <= n; i++)
		fds[i] = -1;
	return fds;
}

/* Descriptors that tasks inherit besides those of open files. */
static size_t count_fixed(const struct restore *restore)
{
	const struct model *model = &restore->model;
	size_t n = 2 * model->n_mapped + image_files(restore->image);
	for (size_t i = 0; i < model->n_ghosts; i++)
		n += !is_file_ghost(&model->ghosts[i]);
	for (size_t i = 0; i < model->n_processes; i++)
		n += 1 + (strcmp(model->processes[i].root.path, "/") != 0);
	return n;
}

/* Its file, and those of the images it builds on. */
static int bring_image(struct restore *restore, struct fsnap_error *err)
{
	unsigned n = image_files(restore->image);
	restore->image_fds = descriptors(n);
	if (!restore->image_fds)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "descriptors of the image");
	for (unsigned i = 0; i < n; i++) {
		int fd = image_page_descriptor(restore->image, i);
		restore->image_fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, restore->bench);
		if (restore->image_fds[i] < 0)
			return no_room(err);
	}
	return 0;
}

static int make_room(struct restore *restore, struct fsnap_error *err)
{
	const struct model *model = &restore->model;
	machine_raise_files(); /* the bench needs a number for every file there is */
	restore->bench = highest_fd(model) + 1;
	restore->files = calloc(model->n_files + 1, sizeof(*restore->files));
	restore->mapped_fd = descriptors(model->n_mapped);
	restore->mapped_write_fd = descriptors(model->n_mapped);
	restore->ghost_fd = descriptors(model->max_space);
	restore->linkable_fd = descriptors(model->max_space);
	restore->ghost_place = calloc(model->max_space + 1, sizeof(*restore->ghost_place));
	restore->cwd_fd = descriptors(model->n_processes);
	restore->root_fd = descriptors(model->n_processes);
	if (!restore->files || !restore->mapped_fd || !restore->mapped_write_fd || !restore->ghost_fd ||
	    !restore->linkable_fd || !restore->ghost_place || !restore->cwd_fd || !restore->root_fd)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "descriptors of the image");
	for (size_t i = 0; i < model->n_files; i++)
		restore->files[i].fd = -1;
	if (shelves_plan(restore, count_fixed(restore), err) < 0)
		return -1;
	if (restore->explaining)
		restore->shelves.needed = false;
	/* Closed ones stay closed: the tasks get their own choice anyway. */
	for (int i = 0; i < 3; i++)
		restore->stdio[i] = fcntl(i, F_DUPFD_CLOEXEC, restore->bench);
	return bring_image(restore, err);
}

/* Paths in the records; those in the states of files are for their kinds. */
static int remap_records(struct restore *restore, struct fsnap_error *err)
{
	struct model *model = &restore->model;
	for (size_t i = 0; i < model->n_ghosts; i++)
		if (model->ghosts[i].name[0] == '/' && /* memfds have names, too */
		    restore_remap(restore, &model->ghosts[i].name, err) < 0)
			return -1;
	for (size_t i = 0; i < model->n_mapped; i++)
		if (restore_remap(restore, &model->mapped[i].identity.path, err) < 0)
			return -1;
	for (size_t i = 0; i < model->n_processes; i++)
		if (restore_remap(restore, &model->processes[i].cwd.path, err) < 0 ||
		    restore_remap(restore, &model->processes[i].root.path, err) < 0)
			return -1;
	return 0;
}

/* The root's, and that of all who were where it was. */
static int move_directory(struct restore *restore, struct fsnap_error *err)
{
	struct model *model = &restore->model;
	image_identity was = model->processes[0].cwd;
	cleanup_free char *path = restore->options->cwd ? strdup(was.path) : NULL;
	if (!restore->options->cwd)
		return 0;
	if (restore->options->cwd[0] != '/') {
		fail(err, FSNAP_E_USAGE, 0, "--cwd %s: not an absolute path", restore->options->cwd);
		return error_hint(err, "say where the root shall work from / on");
	}
	struct stat stat_of;
	if (stat(restore->options->cwd, &stat_of) < 0 || !S_ISDIR(stat_of.st_mode)) {
		fail(err, FSNAP_E_USAGE, 0, "--cwd %s: there is no such directory", restore->options->cwd);
		return error_hint(err, "make it, or say another: the root is to work there");
	}
	for (size_t i = 0; i < model->n_processes; i++) {
		image_identity *cwd = &model->processes[i].cwd;
		if (!path || strcmp(cwd->path, path) != 0)
			continue;
		free(cwd->path);
		cwd->path = strdup(restore->options->cwd);
		cwd->ghost = 0;
		cwd->handle.handle_len = 0;
		if (!cwd->path)
			break;
	}
	return model->processes[0].cwd.path ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "--cwd");
}

int workshop_open(struct restore *restore, struct fsnap_error *err)
{
	if (remap_records(restore, err) < 0 || move_directory(restore, err) < 0 || make_room(restore, err) < 0 || clocks_prepare(restore, err) < 0 ||
	    cgroups_prepare(restore, err) < 0)
		return -1;
	for (size_t i = 0; i < restore->model.n_ghosts; i++)
		if (!is_file_ghost(&restore->model.ghosts[i]) &&
		    ghost_make(restore, restore->model.ghosts[i].id, err) < 0)
			return -1;
	for (size_t i = 0; i < restore->model.n_mapped; i++)
		if (!keeper_has_mapped(restore->keeper, &restore->model, restore->model.mapped[i].id) &&
		    mapped_reopen(restore, &restore->model.mapped[i], err) < 0)
			return -1;
	if (files_make(restore, err) < 0 || directories_open(restore, err) < 0)
		return -1;
	if (!restore->explaining)
		drop_file_ghosts(restore);
	return 0;
}

int workshop_open_mapped(struct restore *restore, struct fsnap_error *err)
{
	if (make_room(restore, err) < 0)
		return -1;
	for (size_t i = 0; i < restore->model.n_mapped; i++)
		if (!restore->model.mapped[i].identity.ghost && mapped_reopen(restore, &restore->model.mapped[i], err) < 0)
			return -1;
	return 0;
}

/* One that several have stands in a row. */
static void close_all(bool open, int **fds, size_t n)
{
	int last = -1;
	for (size_t i = 0; *fds && i <= n; i++) {
		if (open && (*fds)[i] >= 0 && (*fds)[i] != last)
			close((*fds)[i]);
		last = (*fds)[i] >= 0 ? (*fds)[i] : last;
	}
	free(*fds);
	*fds = NULL;
}

void workshop_close(struct restore *restore)
{
	const struct model *model = &restore->model;
	bool open = !restore->explaining;
	for (size_t i = 0; restore->files && i < model->n_files; i++) {
		const struct file_kind *kind = file_kind_find(model->files[i].kind);
		if (open && restore->files[i].fd >= 0)
			close(restore->files[i].fd);
		if (kind && kind->xdr)
			xdr_free(kind->xdr, (char *)&restore->files[i].state);
	}
	free(restore->files);
	restore->files = NULL;
	free(restore->ghost_place);
	shelves_close(restore);
	file_keys_free(&restore->file_keys);
	close_all(open, &restore->mapped_fd, model->n_mapped);
	close_all(open, &restore->mapped_write_fd, model->n_mapped);
	close_all(open, &restore->ghost_fd, model->max_space);
	close_all(open, &restore->linkable_fd, model->max_space);
	close_all(open, &restore->cwd_fd, model->n_processes);
	close_all(open, &restore->root_fd, model->n_processes);
	for (int i = 0; i < 3; i++)
		if (restore->stdio[i] >= 0)
			close(restore->stdio[i]);
	close_all(true, &restore->image_fds, restore->image_fds ? image_files(restore->image) : 0);
	if (open && restore->time_namespace >= 0)
		close(restore->time_namespace);
	for (size_t i = 0; i < sizeof(restore->scratch) / sizeof(restore->scratch[0]); i++) {
		if (restore->scratch[i] && file_kinds[i]->restore_end)
			file_kinds[i]->restore_end(restore->scratch[i]);
		free(restore->scratch[i]);
	}
}

void workshop_release(struct restore *restore)
{
	for (size_t i = 0; file_kinds[i]; i++)
		if (restore->scratch[i] && file_kinds[i]->release)
			file_kinds[i]->release(restore);
}
