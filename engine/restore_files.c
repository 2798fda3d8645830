#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/changed.h"
#include "engine/clocks.h"
#include "engine/find_name.h"
#include "engine/kinds/locks.h"
#include "engine/machine.h"
#include "engine/notes.h"
#include "engine/restore.h"
#include "store/scope.h"

/* --- the bench ------------------------------------------------------------------ */

static int no_room(struct fsnap_error *err)
{
	fail(err, FSNAP_E_SYSTEM, errno, "the limit on open files");
	return error_hint(err, "raise it: ulimit -n");
}

int workshop_keep(struct restore *restore, int fd, struct fsnap_error *err)
{
	return restore->shelves.needed ? fd : workshop_bench(restore, fd, err);
}

int workshop_bench(struct restore *restore, int fd, struct fsnap_error *err)
{
	if (fd < 0 || fd >= restore->bench)
		return fd;
	int kept = fcntl(fd, F_DUPFD_CLOEXEC, restore->bench);
	if (kept < 0)
		no_room(err);
	close(fd);
	return kept;
}

static bool is_made(const struct workshop_file *file)
{
	return file->fd >= 0 || file->place.shelf;
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

/* --- what kinds may ask --------------------------------------------------------------- */

const struct fsnap_restore_options *restore_options(const struct restore *restore)
{
	return restore->options;
}

const char *restore_hold(const struct restore *restore)
{
	return restore->model.tree.hold;
}

void restore_note(struct restore *restore, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	notes_add(restore->report->notes, sizeof(restore->report->notes), format, args);
	va_end(args);
}

static const image_process *process_of_thread(const struct model *model, pid_t tid)
{
	for (size_t i = 0; i < model->n_processes; i++)
		for (u_int j = 0; j < model->processes[i].threads.threads_len; j++)
			if (model->processes[i].threads.threads_val[j].tid == tid)
				return &model->processes[i];
	return NULL;
}

uint64_t restore_mapped(struct restore *restore, pid_t tid, unsigned file_id, uint64_t offset, uint64_t size)
{
	const image_process *process = process_of_thread(&restore->model, tid);
	const image_mm *mm = process ? model_mm(&restore->model, process->mm) : NULL;
	for (u_int i = 0; mm && i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind == VMA_RING && vma->object == file_id && vma->offset == offset &&
		    vma->end - vma->start >= size)
			return vma->start;
	}
	return 0;
}

int restore_fd(struct restore *restore, unsigned file_id)
{
	if (file_id == 0 || file_id > restore->model.n_files)
		return -1;
	const struct workshop_file *made = &restore->files[file_id - 1];
	return made->fd < 0 && made->place.shelf ? shelves_borrow(restore, file_id) : made->fd;
}

void restore_give(struct restore *restore, unsigned file_id, int fd)
{
	if (file_id == 0 || file_id > restore->model.n_files || is_made(&restore->files[file_id - 1])) {
		close(fd);
		return;
	}
	restore->files[file_id - 1].fd = workshop_keep(restore, fd, NULL);
	restore->files[file_id - 1].given = true;
	shelves_tidy(restore, NULL); /* where that fails, the next file says so */
}

const void *restore_file_state(struct restore *restore, const char *kind, size_t index,
			       const image_file **file)
{
	struct file_cursor *cursor = &restore->file_cursor;
	const struct file_kind *wanted = file_kind_find(kind);
	if (cursor->kind != wanted || index < cursor->number)
		*cursor = (struct file_cursor){ wanted, 0, 0 };
	for (; cursor->at < restore->model.n_files; cursor->at++) {
		const image_file *candidate = &restore->model.files[cursor->at];
		if (strcmp(candidate->kind, kind) != 0 || cursor->number++ < index)
			continue;
		cursor->number--;
		if (file)
			*file = candidate;
		return &restore->files[cursor->at].state;
	}
	return NULL;
}

const void *restore_file_by_id(struct restore *restore, unsigned id, const image_file **file)
{
	if (id == 0 || id > restore->model.n_files)
		return NULL;
	*file = &restore->model.files[id - 1];
	return &restore->files[id - 1].state;
}

const void *restore_file_next(struct restore *restore, const struct file_kind *kind, uint64_t key,
			      size_t *at, const image_file **file)
{
	size_t i = file_keys_next(&restore->file_keys, kind, key, at);
	if (i == SIZE_MAX)
		return NULL;
	if (file)
		*file = &restore->model.files[i];
	return &restore->files[i].state;
}

void **restore_scratch(struct restore *restore, const struct file_kind *kind)
{
	size_t place = 0;
	while (file_kinds[place] != kind)
		place++;
	return &restore->scratch[place];
}

int restore_ghost(struct restore *restore, unsigned ghost_id, unsigned flags, struct fsnap_error *err)
{
	if (ghost_make(restore, ghost_id, err) < 0)
		return -1;
	if ((flags & O_TMPFILE) == O_TMPFILE && restore->linkable_fd[ghost_id] >= 0)
		return steal_fd(&restore->linkable_fd[ghost_id]); /* the only one that has these flags */
	if (model_ghost(&restore->model, ghost_id)->kind != GHOST_DIRECTORY)
		flags &= ~(unsigned)O_TMPFILE;
	const struct workshop_place *place = &restore->ghost_place[ghost_id];
	char path[48];
	if (place->shelf)
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", restore->shelves.list[place->shelf - 1].pid,
			 place->number);
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d", restore->ghost_fd[ghost_id]);
	int fd = open(path, (int)((flags & ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW)) | O_CLOEXEC));
	if (fd < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "opening the content of a deleted file");
	return fd;
}

static int cannot_open(const image_identity *identity, struct fsnap_error *err)
{
	if (identity->handle.handle_len && (errno == ESTALE || errno == ENOENT)) {
		fail(err, FSNAP_E_FILE_MISSING, 0, "the file that was %s, and had other names, is not there any more",
		     identity->path);
		return error_hint(err, "hand another one in: --fd N=M");
	}
	if (errno == ENOENT || errno == ENOTDIR) {
		fail(err, FSNAP_E_FILE_MISSING, 0, "%s is not there any more", identity->path);
		return error_hint(err, "put it back where it was, or say where it is now: --map %s=NEW",
				  identity->path);
	}
	fail(err, FSNAP_E_SYSTEM, errno, "cannot open %s", identity->path);
	return error_hint(err, "restore as a user who may open it, or hand it in: --fd");
}

/* Opens what the path leads to now, if that is a file of the same type. */
static int open_path(const image_identity *identity, unsigned flags, struct stat *stat,
		     struct fsnap_error *err)
{
	flags &= ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC);
	int how = (int)(flags | O_CLOEXEC | O_NOCTTY);
	cleanup_fd int fd = identity->handle.handle_len ? open_handle(identity, how) : open(identity->path, how);
	if (fd < 0 || fstat(fd, stat) < 0)
		return cannot_open(identity, err);
	if ((stat->st_mode & S_IFMT) != (identity->mode & S_IFMT)) {
		fail(err, FSNAP_E_FILE_CHANGED, 0, "%s is another kind of file than it was", identity->path);
		return error_hint(err, "put the original back, or say with --map where it is now");
	}
	return steal_fd(&fd);
}

int restore_open(struct restore *restore, const image_identity *identity, unsigned flags,
		 struct fsnap_error *err)
{
	struct stat stat;
	if (identity->ghost)
		return restore_ghost(restore, identity->ghost, flags, err);
	cleanup_fd int fd = open_path(identity, flags, &stat, err);
	if (fd < 0 || changed_opened(restore, identity, &stat, fd, err) < 0)
		return -1;
	return steal_fd(&fd);
}

int restore_remap(struct restore *restore, char **path, struct fsnap_error *err)
{
	char *now = remap_path(&restore->remap, *path, err);
	if (!now)
		return error_is_set(err) ? -1 : 0;
	free(*path);
	*path = now;
	return 0;
}

/* --- mapped files ------------------------------------------------------------------------ */

static int open_once(struct restore *restore, const image_mapped *mapped, unsigned flags, struct fsnap_error *err)
{
	struct stat stat;
	int fd = mapped->identity.ghost ? restore_ghost(restore, mapped->identity.ghost, flags, err) :
					  open_path(&mapped->identity, flags, &stat, err);
	return fd < 0 ? -1 : workshop_keep(restore, fd, err);
}

/* Twice where it must be: what was mapped through a descriptor that could only read cannot be made writable. */
static int open_mapped(struct restore *restore, const image_mapped *mapped, struct fsnap_error *err)
{
	int fd = restore->mapped_fd[mapped->id] = open_once(restore, mapped, O_RDONLY, err);
	if (fd < 0 || changed_mapped(restore, mapped, fd, err) < 0)
		return -1;
	if (!mapped->writable)
		return 0;
	fd = restore->mapped_write_fd[mapped->id] = open_once(restore, mapped, O_RDWR, err);
	return fd < 0 ? -1 : 0;
}

/* --- open file descriptions ------------------------------------------------------------------ */

static int decode_state(struct restore *restore, size_t index, struct fsnap_error *err)
{
	image_file *file = &restore->model.files[index];
	const struct file_kind *kind = file_kind_find(file->kind);
	if (!kind || !kind->xdr || !kind->make) {
		fail(err, FSNAP_E_IMAGE_FORMAT, 0, "the image holds a descriptor of a kind this fsnap does not "
						   "know: %s (%s)", file->kind, file->label);
		return error_hint(err, "restore with a newer fsnap");
	}
	XDR xdr;
	void *state = &restore->files[index].state;
	xdrmem_create(&xdr, file->state.state_val, file->state.state_len, XDR_DECODE);
	if (!kind->xdr(&xdr, state))
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "the record of %s cannot be decoded", file->label);
	return kind->remap ? kind->remap(restore, state, err) : 0;
}

/* There is nothing in it to have a place among. */
static bool is_removed_directory(int fd)
{
	struct stat stat;
	return fstat(fd, &stat) == 0 && S_ISDIR(stat.st_mode) && stat.st_nlink == 0;
}

/* What files of every kind have. */
static int apply_common(const image_file *file, int fd, struct fsnap_error *err)
{
	uint64_t hint = file->hint;
	if (file->flags & O_PATH)
		return 0;
	if (hint && fcntl(fd, F_SET_RW_HINT, &hint) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "the expected lifetime of its data");
	if (file->pos && lseek(fd, (off_t)file->pos, SEEK_SET) < 0 && errno != ESPIPE && !is_removed_directory(fd))
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file offset %llu",
			    (unsigned long long)file->pos);
	int settable = O_APPEND | O_DIRECT | O_NOATIME | O_NONBLOCK;
	int now = fcntl(fd, F_GETFL);
	int wanted = (now & ~settable) | ((int)file->flags & settable);
	if (now < 0 || (now != wanted && fcntl(fd, F_SETFL, wanted) < 0))
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file status flags");
	return 0;
}

/* An error about this file, said as people know it. */
static int whose(const struct restore *restore, size_t index, struct fsnap_error *err)
{
	const struct workshop_file *made = &restore->files[index];
	const char *label = restore->model.files[index].label;
	if (!made->holder)
		return error_context(err, "descriptor (%s)", label);
	return error_context(err, "process %d (%s): descriptor %d (%s)", made->holder->pid,
			     made->holder->threads.threads_val[0].comm, made->number, label);
}

/* Owners are processes that exist only later; the kernel wants them alive: see compile.c. */
static int make_file(struct restore *restore, size_t index, struct fsnap_error *err)
{
	const image_file *file = &restore->model.files[index];
	struct workshop_file *made = &restore->files[index];
	const struct file_kind *kind = file_kind_find(file->kind);
	/* Made with its other end; another one would lead nowhere. */
	if (made->given && !is_made(made)) {
		fail(err, FSNAP_E_SYSTEM, EMFILE, "its other end was made");
		error_hint(err, "raise the limit on open files: ulimit -n");
		return whose(restore, index, err);
	}
	if (!is_made(made)) {
		int fd = kind->make(restore, file, &made->state, err);
		if (fd < 0)
			return whose(restore, index, err);
		made->fd = workshop_keep(restore, fd, err);
	}
	int fd = restore_fd(restore, (unsigned)index + 1);
	if (fd < 0)
		return -1;
	if (made->handed)
		return 0;
	if (locks_take(file, fd, err) < 0 || (!kind->own_flags && apply_common(file, fd, err) < 0))
		return whose(restore, index, err);
	return shelves_tidy(restore, err);
}

static int index_files(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_files; i++) {
		const struct file_kind *kind = file_kind_find(restore->model.files[i].kind);
		if (kind->key && file_keys_add(&restore->file_keys, kind, kind->key(&restore->files[i].state), i,
					       err) < 0)
			return -1;
	}
	file_keys_sort(&restore->file_keys);
	return 0;
}

static void find_holders(struct restore *restore)
{
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		for (u_int j = 0; j < process->fds.fds_len; j++) {
			const image_fd *fd = &process->fds.fds_val[j];
			struct workshop_file *file = &restore->files[fd->file - 1];
			if (file->holder)
				continue;
			file->holder = process;
			file->number = fd->fd;
		}
	}
}

static int connect_files(struct restore *restore, int rank, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_files; i++) {
		const image_file *file = &restore->model.files[i];
		const struct file_kind *kind = file_kind_find(file->kind);
		restore->shelves.pinned = file->id;
		if (kind->connect && kind->connect_rank == rank && !restore->files[i].handed &&
		    kind->connect(restore, file, &restore->files[i].state, restore_fd(restore, file->id), err) < 0)
			return whose(restore, i, err);
	}
	return 0;
}

static int make_files(struct restore *restore, struct fsnap_error *err)
{
	size_t n = restore->model.n_files;
	find_holders(restore);
	for (size_t i = 0; i < n; i++)
		if (decode_state(restore, i, err) < 0)
			return -1;
	if (index_files(restore, err) < 0 || handed_place(restore, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (make_file(restore, i, err) < 0)
			return -1;
	if (shelves_put(restore, err) < 0)
		return -1;
	for (int rank = 0; rank <= 2; rank++)
		if (connect_files(restore, rank, err) < 0)
			return -1;
	return shelves_put(restore, err);
}

static int open_directories(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		if (process->zombie)
			continue;
		int fd = restore_open(restore, &process->cwd, O_PATH | O_DIRECTORY, err);
		if (fd < 0 || (restore->cwd_fd[i] = workshop_keep(restore, fd, err)) < 0)
			return error_context(err, "process %d: working directory", process->pid);
		if (strcmp(process->root.path, "/") == 0)
			continue;
		fd = restore_open(restore, &process->root, O_PATH | O_DIRECTORY, err);
		if (fd < 0 || (restore->root_fd[i] = workshop_keep(restore, fd, err)) < 0)
			return error_context(err, "process %d: root directory", process->pid);
	}
	return 0;
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
	size_t n = 2 * model->n_mapped;
	for (size_t i = 0; i < model->n_ghosts; i++)
		n += !is_file_ghost(&model->ghosts[i]);
	for (size_t i = 0; i < model->n_processes; i++)
		n += 1 + (strcmp(model->processes[i].root.path, "/") != 0);
	return n;
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
	/* Closed ones stay closed: the tasks get their own choice anyway. */
	for (int i = 0; i < 3; i++)
		restore->stdio[i] = fcntl(i, F_DUPFD_CLOEXEC, restore->bench);
	restore->image_fd = fcntl(image_descriptor(restore->image), F_DUPFD_CLOEXEC, restore->bench);
	return restore->image_fd < 0 ? no_room(err) : 0;
}

/* Paths in the records; those in the states of files are for their kinds. */
static int remap_records(struct restore *restore, struct fsnap_error *err)
{
	struct model *model = &restore->model;
	for (size_t i = 0; i < model->n_ghosts; i++)
		if (restore_remap(restore, &model->ghosts[i].name, err) < 0)
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

int workshop_open(struct restore *restore, struct fsnap_error *err)
{
	if (remap_records(restore, err) < 0 || make_room(restore, err) < 0 || clocks_prepare(restore, err) < 0)
		return -1;
	for (size_t i = 0; i < restore->model.n_ghosts; i++)
		if (!is_file_ghost(&restore->model.ghosts[i]) &&
		    ghost_make(restore, restore->model.ghosts[i].id, err) < 0)
			return -1;
	for (size_t i = 0; i < restore->model.n_mapped; i++)
		if (open_mapped(restore, &restore->model.mapped[i], err) < 0)
			return -1;
	if (make_files(restore, err) < 0 || open_directories(restore, err) < 0)
		return -1;
	drop_file_ghosts(restore);
	return 0;
}

static void close_all(int **fds, size_t n)
{
	for (size_t i = 0; *fds && i <= n; i++)
		if ((*fds)[i] >= 0)
			close((*fds)[i]);
	free(*fds);
	*fds = NULL;
}

void workshop_close(struct restore *restore)
{
	const struct model *model = &restore->model;
	for (size_t i = 0; restore->files && i < model->n_files; i++) {
		const struct file_kind *kind = file_kind_find(model->files[i].kind);
		if (restore->files[i].fd >= 0)
			close(restore->files[i].fd);
		if (kind && kind->xdr)
			xdr_free(kind->xdr, (char *)&restore->files[i].state);
	}
	free(restore->files);
	restore->files = NULL;
	free(restore->ghost_place);
	shelves_close(restore);
	file_keys_free(&restore->file_keys);
	close_all(&restore->mapped_fd, model->n_mapped);
	close_all(&restore->mapped_write_fd, model->n_mapped);
	close_all(&restore->ghost_fd, model->max_space);
	close_all(&restore->linkable_fd, model->max_space);
	close_all(&restore->cwd_fd, model->n_processes);
	close_all(&restore->root_fd, model->n_processes);
	for (int i = 0; i < 3; i++)
		if (restore->stdio[i] >= 0)
			close(restore->stdio[i]);
	if (restore->image_fd >= 0)
		close(restore->image_fd);
	if (restore->time_namespace >= 0)
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
