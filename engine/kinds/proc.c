/*
 * Files of /proc that are about one process: /proc/PID/status, /proc/self/maps.
 * They can be opened when that process exists, so they are late: a stand-in until
 * the tree is born, then opened anew by their holder, with the rights it has by
 * then. Those about the whole system are files like any.
 */
#include <ctype.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* The number in "/.../NUMBER/...", 0: none. */
static pid_t number_in(const char *path)
{
	for (const char *at = path; (at = strchr(at, '/')); at++) {
		const char *end = at + 1;
		while (isdigit((unsigned char)*end))
			end++;
		if (end > at + 1 && end - at < 11 && (*end == '/' || *end == '\0' || *end == ' '))
			return (pid_t)strtol(at + 1, NULL, 10);
	}
	return 0;
}

static bool proc_matches(const struct fd_view *fd)
{
	struct statfs fs;
	return fd->link[0] == '/' && fd->dup >= 0 && number_in(fd->link) > 0 && fstatfs(fd->dup, &fs) == 0 &&
	       fs.f_type == PROC_SUPER_MAGIC;
}

/* --- dump --------------------------------------------------------------------- */

static int refuse_stranger(const struct fd_view *fd, pid_t pid, struct fsnap_error *err)
{
	char hint[256];
	snprintf(hint, sizeof(hint), "If the restore shall open it anew, say so: fsnap dump --external %d:%d=NAME, "
		 "and fsnap restore --external NAME=7 ... 7<%.100s", fd->process->pid, fd->fd, fd->link);
	return refuse_fd(fd, err, hint, "a file about process %d, which is outside the tree", pid);
}

/* The path as the process itself would say it, which may have another root. */
static const char *path_inside(const struct fd_view *fd)
{
	char root[IMAGE_NAME];
	ssize_t n = readlinkat(fd->process->proc, "root", root, sizeof(root) - 1);
	if (n <= 1)
		return fd->link;
	root[n] = '\0';
	return !strncmp(fd->link, root, (size_t)n) && fd->link[n] == '/' ? fd->link + n : NULL;
}

static int proc_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_proc *state = out;
	struct stat now;
	state->pid = number_in(fd->link);
	state->mode = fd->stat.st_mode;
	/* Nothing says so of the open file; but the path leads to nothing, or to a later one of that number. */
	if (lstat(fd->link, &now) < 0 || now.st_ino != fd->stat.st_ino)
		return refuse_fd(fd, err, "Let the program close it.",
				 "a file about a process or thread that has ended");
	if (!tree_find(dump_tree(fd->dump), state->pid))
		return refuse_stranger(fd, state->pid, err);
	if (file->locks.locks_len)
		return refuse_fd(fd, err, "Let the program lock a file of its own.", "a lock on a file of /proc");
	const char *path = path_inside(fd);
	if (!path)
		return refuse_fd(fd, err, "Let the program close it.", "a file of /proc outside of its root directory");
	return set_string(&state->path, path, err);
}

/* --- restore -------------------------------------------------------------------- */

static bool is_one_of(const char *name, const char *const *list, size_t n)
{
	bool found = false;
	for (size_t i = 0; i < n; i++)
		found |= strcmp(name, list[i]) == 0;
	return found;
}

/* An image says which file about which process, and does not lead further by it: links of /proc/PID lead anywhere, so that
 * none is followed. */
static bool is_proper(const image_file_proc *state)
{
	static const char *const links[] = { "root", "cwd", "exe" }, *const folders[] = { "fd", "map_files", "ns" };
	cleanup_free char *copy = strdup(state->path);
	const char *folder = "";
	bool link = false;
	for (char *rest = copy, *name; (name = strsep(&rest, "/"));) {
		if (!*name)
			continue;
		if (link || strcmp(name, "..") == 0)
			return false;
		link = is_one_of(name, links, sizeof(links) / sizeof(links[0])) ||
		       is_one_of(folder, folders, sizeof(folders) / sizeof(folders[0]));
		folder = name;
	}
	return copy && state->path[0] == '/' && (!link || S_ISLNK(state->mode));
}

static int proc_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	const image_file_proc *state = in;
	if (!is_proper(state))
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "%s is no file about a process", state->path);
	return restore_may_use(restore, state->path, err);
}

static bool proc_is_late(const void *state)
{
	(void)state;
	return true;
}

static int proc_make(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err)
{
	(void)restore;
	(void)in;
	int fd = eventfd(0, EFD_CLOEXEC);
	return fd < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "a stand-in for %s", file->label) : fd;
}

/* The next component of a path that is the number of somebody who has another one now; NULL: there is none. */
static const char *late_number(const struct plans *plans, const char *path, const char **end)
{
	for (const char *at = path; *at; at = *end + (**end == '/')) {
		*end = strchrnul(at, '/');
		if (at[strspn(at, "0123456789")] == **end && plans_is_late(plans, atoi(at)))
			return at;
	}
	return NULL;
}

static uint32_t step(struct plans *plans, uint32_t task, struct arg *directory, struct arg name, unsigned flags)
{
	plan_call(plans, task, SYS_openat, *directory, name, IMM(flags), IMM(0));
	uint32_t slot = plan_result(plans);
	if (directory->kind == ARG_SLOT)
		plan_call(plans, task, SYS_close, *directory);
	*directory = SLOT(slot);
	return slot;
}

/* Step by step where parts of the path are known only when it is opened. */
static uint32_t open_path(struct plans *plans, uint32_t task, const char *path, unsigned flags)
{
	const unsigned on_the_way = O_PATH | O_DIRECTORY | O_CLOEXEC;
	struct arg directory = IMM(AT_FDCWD);
	const char *end;
	for (const char *at; (at = late_number(plans, path, &end)); path = end + 1) {
		uint32_t number = plans_data(plans, NULL, 16, 4);
		uint32_t before = plans_data(plans, NULL, (size_t)(at - path) + 1, 1);
		plans_set(plans, before, path, (size_t)(at - path));
		if (at > path)
			step(plans, task, &directory, DATA(before), on_the_way);
		plan_decimal(plans, task, DATA(number), plan_number(plans, task, atoi(at)));
		if (!*end || !end[1])
			return step(plans, task, &directory, DATA(number), flags);
		step(plans, task, &directory, DATA(number), on_the_way);
	}
	return step(plans, task, &directory, DATA(plans_data(plans, path, strlen(path) + 1, 1)), flags);
}

static unsigned open_flags(const image_file *file, const image_file_proc *state)
{
	unsigned flags = (file->flags & ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC | O_ASYNC)) | O_CLOEXEC;
	return S_ISLNK(state->mode) ? flags | O_NOFOLLOW : flags;
}

/* Numbers of the tree's own in the path are what they are now. */
static bool path_now(struct restore *restore, const char *path, char *now, size_t size)
{
	size_t used = 0;
	for (const char *end; *path && used < size; path = end + (*end == '/')) {
		end = strchrnul(path, '/');
		bool number = end > path && path[strspn(path, "0123456789")] == *end;
		const char *slash = *end ? "/" : "";
		int n = number ? snprintf(now + used, size - used, "%d%s", restore_number(restore, atoi(path)), slash) :
				 snprintf(now + used, size - used, "%.*s%s", (int)(end - path), path, slash);
		used += (size_t)n;
	}
	return used < size;
}

static int proc_make_late(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err)
{
	const image_file_proc *state = in;
	char path[IMAGE_NAME];
	int fd = path_now(restore, state->path, path, sizeof(path)) ? open(path, (int)open_flags(file, state)) : -1;
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "%s, which a message has", state->path);
	if (file->pos && !(file->flags & O_PATH))
		lseek(fd, (off_t)file->pos, SEEK_SET); /* its text may be shorter now */
	return fd;
}

static uint32_t proc_arrive(struct restore *restore, const image_file *file, const void *in,
			    struct plans *plans, uint32_t task)
{
	(void)restore;
	const image_file_proc *state = in;
	unsigned flags = open_flags(file, state);
	uint32_t slot = open_path(plans, task, state->path, flags);
	if (file->pos && !(flags & O_PATH)) {
		plan_call(plans, task, SYS_lseek, SLOT(slot), IMM(file->pos), IMM(SEEK_SET));
		plan_accept_any(plans); /* its text may be shorter now */
	}
	return slot;
}

const struct file_kind kind_proc = {
	.name = "proc",
	.keeps = "files of /proc about processes of the tree, opened anew; those about the system are regular",
	.refuses = "those about other processes, unless --external says so, or ended ones",
	.shown_by = "file_proc",
	.xdr = (xdrproc_t)xdr_image_file_proc,
	.own_flags = true,
	.matches = proc_matches,
	.save = proc_save,
	.remap = proc_remap,
	.make = proc_make,
	.is_late = proc_is_late,
	.arrive = proc_arrive,
	.make_late = proc_make_late,
};
