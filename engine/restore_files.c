/*
 * restore_files.c - every open file description of the image, made in this process: all are made, then all are
 * connected. What a kind does is its own (kinds.h); here is what they have in common.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/file_keys.h"
#include "engine/kinds/locks.h"
#include "engine/restore.h"
#include "store/scope.h"

static bool is_made(const struct workshop_file *file)
{
	return file->fd >= 0 || file->place.shelf;
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
	errno = 0;
	xdrmem_create(&xdr, file->state.state_val, file->state.state_len, XDR_DECODE);
	bool decoded = kind->xdr(&xdr, state);
	if (!decoded && errno == ENOMEM)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the record of %s", file->label);
	if (!decoded)
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

/* An error about this file, said as people know it; unless its kind has said whose it is. */
static int whose(const struct restore *restore, size_t index, struct fsnap_error *err)
{
	const struct workshop_file *made = &restore->files[index];
	if (restore->blamed)
		return -1;
	const char *label = restore->model.files[index].label;
	if (!made->holder)
		return error_context(err, "descriptor (%s)", label);
	return error_context(err, "process %d (%s): descriptor %d (%s)", made->holder->pid,
			     made->holder->threads.threads_val[0].comm, made->number, label);
}

int restore_blame(struct restore *restore, const image_file *file, struct fsnap_error *err)
{
	whose(restore, file->id - 1, err);
	restore->blamed = true;
	return -1;
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

/* What one process must make, or settle, is held by that one. */
static void prefer_settlers(struct restore *restore)
{
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		for (u_int j = process->fds.fds_len; j-- > 0;) {
			const image_fd *fd = &process->fds.fds_val[j];
			struct workshop_file *file = &restore->files[fd->file - 1];
			const struct file_kind *kind = file_kind_find(restore->model.files[fd->file - 1].kind);
			if (!kind->settler || kind->settler(&file->state) != process->pid)
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

/* What lies there is looked at, without opening it: is it what it was? */
static int pretend_file(struct restore *restore, size_t index, struct fsnap_error *err)
{
	const image_file *file = &restore->model.files[index];
	struct workshop_file *made = &restore->files[index];
	const image_identity *identity =
		strcmp(file->kind, "regular") == 0 ? &made->state.regular.identity : NULL;
	if (made->handed)
		return 0;
	if (identity && !identity->ghost) {
		cleanup_fd int fd = restore_open(restore, identity,
						 O_PATH | (S_ISLNK(identity->mode) ? O_NOFOLLOW : 0), err);
		if (fd < 0)
			return whose(restore, index, err);
	}
	made->fd = workshop_pretend(restore);
	return 0;
}

static int files_pretend(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_files; i++)
		if (pretend_file(restore, i, err) < 0)
			return -1;
	return 0;
}

int files_make(struct restore *restore, struct fsnap_error *err)
{
	size_t n = restore->model.n_files;
	find_holders(restore);
	for (size_t i = 0; i < n; i++)
		if (decode_state(restore, i, err) < 0)
			return -1;
	prefer_settlers(restore);
	if (ports_check(&restore->ports, err) < 0 || index_files(restore, err) < 0 || handed_place(restore, err) < 0)
		return -1;
	if (restore->explaining)
		return files_pretend(restore, err);
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
