/*
 * dump_files.c - descriptors -> open file descriptions -> kinds. Each open file description is saved once, by the
 * first kind that knows it (kinds.h), however many descriptors there are of it.
 */
#include <fcntl.h>
#include <linux/kcmp.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/kinds/carried.h"
#include "engine/kinds/locks.h"
#include "engine/kinds/sockopt.h"
#include "engine/leftover.h"
#include "engine/procfs.h"
#include "engine/record_locks.h"
#include "store/scope.h"

/* Open file descriptions in an order of their own: by inode, and those of one inode (all of
 * anon_inode have the same) as kcmp(2) orders them. */
static int compare_files(const void *a, const void *b)
{
	const struct saved_file *left = a, *right = b;
	if (left->stat.st_ino != right->stat.st_ino)
		return left->stat.st_ino < right->stat.st_ino ? -1 : 1;
	if (left->stat.st_dev != right->stat.st_dev)
		return left->stat.st_dev < right->stat.st_dev ? -1 : 1;
	if (left->number != right->number)
		return left->number < right->number ? -1 : 1;
	switch (syscall(SYS_kcmp, left->pid, right->pid, KCMP_FILE, left->fd, right->fd)) {
	case 0:
		return 0;
	case 1:
		return -1;
	}
	return 1;
}

/* Whom signals about it go to, and which; what the writer knows of its lifetime. */
static void collect_common(const struct fd_view *fd, image_file *file)
{
	struct f_owner_ex owner = { 0 };
	uint64_t hint = 0;
	if (fd->dup < 0 || (fd->flags & O_PATH))
		return;
	if (fcntl(fd->dup, F_GETOWN_EX, &owner) == 0 && owner.pid) {
		file->owner = owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid;
		file->owner_tid = owner.type == F_OWNER_TID;
	}
	file->signo = fcntl(fd->dup, F_GETSIG);
	if (S_ISREG(fd->stat.st_mode) && fcntl(fd->dup, F_GET_RW_HINT, &hint) == 0)
		file->hint = (unsigned)hint;
}

static struct saved_file *save_file(struct saved_file *saved, const struct fd_view *fd,
				    struct fsnap_error *err)
{
	const struct file_kind *kind = file_kinds[0];
	for (size_t i = 0; !kind->matches(fd); i++)
		kind = file_kinds[i + 1];
	saved->file = (image_file){ .id = (unsigned)fd->dump->n_files, .kind = strdup(kind->name),
				    .flags = fd->flags, .pos = fd->pos, .label = strdup(fd->link) };
	if (!saved->file.kind || !saved->file.label) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "descriptors");
		return NULL;
	}
	collect_common(fd, &saved->file);
	if (strcmp(kind->name, "external") != 0 && locks_save(fd, &saved->file, err) < 0)
		return NULL;
	return kind->save(fd, &saved->file, &saved->state, err) < 0 ? NULL : saved;
}

/* What the kernel itself calls it, where it does: spares the many of one inode most of their kcmp(2). */
static uint64_t number_of(const struct fd_view *fd)
{
	uint64_t number = 0;
	if (strcmp(fd->link, "anon_inode:[eventfd]") == 0)
		fdinfo_number(fd->info, "eventfd-id", 10, &number); /* Linux 5.2 */
	return number;
}

/* Descriptors of one open file description share it after a restore as well. */
static struct saved_file *find_or_save(const struct fd_view *fd, struct fsnap_error *err)
{
	struct dump *dump = fd->dump;
	struct saved_file **files = grow(dump->files, dump->n_files, sizeof(*files), err);
	struct saved_file *saved = files ? calloc(1, sizeof(*saved)) : NULL;
	if (files)
		dump->files = files;
	if (saved)
		*saved = (struct saved_file){ .stat = fd->stat, .pid = fd->pid, .fd = fd->fd, .held = -1,
					      .number = number_of(fd) };
	/* Looks for it and puts it in, at once. */
	struct saved_file **found = saved ? tsearch(saved, &dump->by_identity, compare_files) : NULL;
	if (!found || *found != saved)
		free(saved);
	if (!found) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "descriptors");
		return NULL;
	}
	if (*found != saved)
		return *found;
	dump->files[dump->n_files++] = saved;
	return save_file(saved, fd, err);
}

static int add_fd(struct process *process, int number, const struct saved_file *saved, unsigned cloexec,
		  struct fsnap_error *err)
{
	image_process *image = &process->image;
	image_fd *fds = grow(image->fds.fds_val, image->fds.fds_len, sizeof(*fds), err);
	if (!fds)
		return -1;
	image->fds.fds_val = fds;
	fds[image->fds.fds_len++] = (image_fd){ number, saved->file.id, cloexec };
	return 0;
}

/* What view->dup is of; errno: it could not be asked. */
static int sort_of_file(struct fd_view *view)
{
	int unknown = view->dup < 0 ? EBADF : fstat(view->dup, &view->stat) < 0 ? errno : 0;
	view->socket = socket_sort_of(!unknown && S_ISSOCK(view->stat.st_mode) ? view->dup : -1);
	return unknown;
}

static int cannot_look(const struct fd_view *view, int code, int sys, struct fsnap_error *err)
{
	return fail(err, code, sys, "process %d (%s): descriptor %d (%s)", view->process->pid, view->process->comm, view->fd,
		    view->link);
}

/* What fdinfo says, behind sort_of_file(); *flags as it is shown there. */
static int look_at_file(struct fd_view *view, uint64_t *flags, struct fsnap_error *err)
{
	if (!view->info || !fdinfo_number(view->info, "flags", 8, flags) ||
	    !fdinfo_number(view->info, "pos", 10, &view->pos))
		return cannot_look(view, FSNAP_E_SYSTEM, errno, err);
	/* The number's close-on-exec flag is shown among the description's. */
	view->flags = (unsigned)*flags & ~(unsigned)O_CLOEXEC;
	return 0;
}

/* fdinfo shows close-on-exec among the flags of the open file, where some ways to open one (mq_open,
 * TIOCGPTPEER) leave the same bit, whatever the number has: then the process is asked itself. */
enum { CLOEXEC_UNKNOWN = 2 };

static unsigned closes_on_exec(const struct fd_view *view, uint64_t flags)
{
	if (!(flags & O_CLOEXEC))
		return 0;
	int own = fcntl(view->dup, F_GETFL);
	return own >= 0 && (own & O_CLOEXEC) ? CLOEXEC_UNKNOWN : 1;
}

/* Nobody has record locks on it, while all that could take some stand still. Of regular files another process may have to
 * be asked, as FUSE does, and that one may stand still as well; of what else there is the kernel knows itself. */
static bool has_no_locks(const struct fd_view *view)
{
	struct flock any = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	return view->dump->tree.n_processes > 1 && !S_ISREG(view->stat.st_mode) && !S_ISDIR(view->stat.st_mode) &&
	       !(view->flags & O_PATH) && fcntl(view->dup, F_GETLK, &any) == 0 && any.l_type == F_UNLCK;
}

/* What a process has from its parent it mostly has under the same number: the kernel is asked whether it is the
 * same, and nothing else. NULL: it is not. */
static struct saved_file *find_inherited(struct dump *dump, const struct process *process, int number)
{
	const struct process *parent = process->ppid ? tree_find(&dump->tree, process->ppid) : NULL;
	const image_fd *fds = parent ? parent->image.fds.fds_val : NULL;
	u_int low = 0, high = parent ? parent->image.fds.fds_len : 0;
	while (low < high) { /* as /proc lists them, by number */
		u_int middle = (low + high) / 2;
		if (fds[middle].fd < number)
			low = middle + 1;
		else
			high = middle;
	}
	if (!parent || low == parent->image.fds.fds_len || fds[low].fd != number ||
	    syscall(SYS_kcmp, parent->live, process->live, KCMP_FILE, number, number) != 0)
		return NULL;
	return dump->files[fds[low].file - 1];
}

uint32_t files_ask(const struct process *process, struct plans *plans)
{
	uint32_t first = 0;
	for (u_int i = 0, n = 0; i < process->image.fds.fds_len; i++) {
		const image_fd *fd = &process->image.fds.fds_val[i];
		if (fd->cloexec != CLOEXEC_UNKNOWN)
			continue;
		plan_note(plans, "flags of descriptor %d", fd->fd);
		plan_call(plans, 0, SYS_fcntl, IMM(fd->fd), IMM(F_GETFD));
		uint32_t slot = plan_result(plans);
		first = n++ ? first : slot;
	}
	return first;
}

void files_answer(struct process *process, const struct plans *plans, struct ctl *ctl, uint32_t first)
{
	for (u_int i = 0, n = 0; i < process->image.fds.fds_len; i++) {
		image_fd *fd = &process->image.fds.fds_val[i];
		if (fd->cloexec == CLOEXEC_UNKNOWN)
			fd->cloexec = plans_slot(plans, ctl, first + n++) & FD_CLOEXEC;
	}
}

/* The number's own flag and the process' own locks are all that is not known yet. */
static int view_inherited(struct dump *dump, struct process *process, int number, const struct saved_file *saved,
			  struct fsnap_error *err)
{
	char name[32];
	uint64_t flags;
	if (saved->lockless)
		return add_fd(process, number, saved, CLOEXEC_UNKNOWN, err);
	snprintf(name, sizeof(name), "fdinfo/%d", number);
	cleanup_free char *info = procfs_read_once(process->proc, name, NULL, err);
	struct fd_view view = { .dump = dump, .process = process, .pid = process->live, .fd = number, .dup = -1,
				.link = saved->file.label, .info = info, .stat = saved->stat, .socket = { -1, -1, -1 } };
	if (!info || !fdinfo_number(info, "flags", 8, &flags))
		return cannot_look(&view, FSNAP_E_SYSTEM, errno, err);
	unsigned cloexec = !(flags & O_CLOEXEC) ? 0 : saved->stuck ? CLOEXEC_UNKNOWN : 1;
	return add_fd(process, number, saved, cloexec, err) < 0 ? -1 : record_locks_collect(&view, err);
}

/* Standard input, output and error are mostly the same: then the kernel is asked that, and the process for the
 * number's own flag. */
static bool view_standard(struct dump *dump, struct process *process, int number, struct fsnap_error *err)
{
	const image_process *image = &process->image;
	const image_fd *before = image->fds.fds_len ? &image->fds.fds_val[image->fds.fds_len - 1] : NULL;
	if (number > STDERR_FILENO || !before ||
	    syscall(SYS_kcmp, process->live, process->live, KCMP_FILE, before->fd, number) != 0)
		return false;
	return add_fd(process, number, dump->files[before->file - 1], CLOEXEC_UNKNOWN, err) == 0;
}

/* As /proc/PID/fd/N says it. Of a socket that is its number (sockfs_dname(), net/socket.c), which fstat(2) tells sooner than
 * a walk through /proc; one that is a name in a file system, opened with O_PATH, has no domain. -1: errno. */
static int link_of(const struct fd_view *view, char *link, size_t size)
{
	char name[32];
	if (view->socket.domain >= 0) {
		snprintf(link, size, "socket:[%lu]", (unsigned long)view->stat.st_ino);
		return 0;
	}
	snprintf(name, sizeof(name), "fd/%d", view->fd);
	ssize_t length = readlinkat(view->process->proc, name, link, size - 1);
	link[length < 0 ? 0 : length] = '\0';
	return length < 0 ? -1 : 0;
}

static char *fdinfo_of(struct dump *dump, const struct process *process, int number, struct fsnap_error *err)
{
	char name[32], *known = readers_info(dump, process, number);
	snprintf(name, sizeof(name), "fdinfo/%d", number);
	return known ? known : procfs_read_once(process->proc, name, NULL, err);
}

static int view_fd(struct dump *dump, struct process *process, int number, struct fsnap_error *err)
{
	char link[4096];
	struct saved_file *inherited = find_inherited(dump, process, number);
	if (inherited)
		return view_inherited(dump, process, number, inherited, err);
	if (view_standard(dump, process, number, err))
		return 0;
	cleanup_fd int dup = (int)syscall(SYS_pidfd_getfd, process->pidfd, number, 0);
	int refused = errno;
	struct fd_view view = { .dump = dump, .process = process, .pid = process->live, .fd = number, .dup = dup,
				.link = link };
	int unknown = sort_of_file(&view);
	if (link_of(&view, link, sizeof(link)) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): descriptor %d", process->pid,
			    process->comm, number);
	if (dup < 0)
		return cannot_look(&view, procfs_code(refused), refused, err);
	if (unknown)
		return cannot_look(&view, FSNAP_E_SYSTEM, unknown, err);
	int ours = leftover_note_descriptor(process, number, link, dup, err);
	if (ours)
		return ours < 0 ? -1 : 0;
	cleanup_free char *info = fdinfo_of(dump, process, number, err);
	view.info = info;
	uint64_t flags;
	if (look_at_file(&view, &flags, err) < 0)
		return -1;
	struct saved_file *saved = find_or_save(&view, err);
	unsigned cloexec = closes_on_exec(&view, flags);
	if (!saved)
		return -1;
	saved->stuck = saved->stuck || cloexec == CLOEXEC_UNKNOWN;
	if (saved->pid == process->live && saved->fd == number)
		saved->lockless = has_no_locks(&view);
	return add_fd(process, number, saved, cloexec, err) < 0 ? -1 : record_locks_collect(&view, err);
}

/* As view_fd(), for what /proc says of a descriptor of ours. */
static struct saved_file *view_received(const struct fd_view *carrier, int fd, struct fsnap_error *err)
{
	char path[32], link[4096];
	uint64_t flags;
	struct fsnap_error ignored = { 0 };
	cleanup_fd int self = procfs_open(carrier->dump->self, &ignored);
	snprintf(path, sizeof(path), "fd/%d", fd);
	ssize_t length = readlinkat(self, path, link, sizeof(link) - 1);
	link[length < 0 ? 0 : length] = '\0';
	snprintf(path, sizeof(path), "fdinfo/%d", fd);
	cleanup_free char *info = procfs_read_once(self, path, NULL, err);
	struct fd_view view = { .dump = carrier->dump, .process = carrier->process, .pid = carrier->dump->self, .fd = fd,
				.dup = fd, .link = link, .info = info, .carrier = carrier };
	int unknown = sort_of_file(&view);
	if (unknown) {
		cannot_look(&view, FSNAP_E_SYSTEM, unknown, err);
		return NULL;
	}
	return look_at_file(&view, &flags, err) < 0 ? NULL : find_or_save(&view, err);
}

unsigned dump_received(const struct fd_view *carrier, int fd, struct fsnap_error *err)
{
	struct saved_file *saved = view_received(carrier, fd, err);
	if (saved && !saved->carrier) {
		const struct fd_view *outer = carrier_outermost(carrier);
		saved->carrier = outer->process;
		saved->carrier_fd = outer->fd;
	}
	/* What is known by our own descriptor only is compared with others through it, to the end. */
	if (saved && saved->pid == carrier->dump->self && saved->fd == fd)
		saved->held = fd;
	else
		close(fd);
	return saved ? saved->file.id : 0;
}

int files_collect(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	size_t n;
	cleanup_free int *fds = readers_descriptors(dump, process) ? readers_numbers(dump, &n) :
								       procfs_numbers(process->proc, "fd", &n, err);
	if (!fds)
		return error_context(err, "process %d (%s)", process->pid, process->comm);
	for (size_t i = 0; i < n; i++)
		if (view_fd(dump, process, fds[i], err) < 0)
			return -1;
	return 0;
}
