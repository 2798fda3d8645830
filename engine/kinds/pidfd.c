/*
 * pidfd_open(2): a process or, with PIDFD_THREAD, a thread.
 *
 * It can be opened again when its process exists, so it is late: a stand-in until
 * the tree is born.  One whose process was waited for long ago is made in the
 * workshop, of a child that ends as that process had ended.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "store/scope.h"

#define THREAD O_EXCL /* PIDFD_THREAD, linux/pidfd.h; Linux 6.9 */

/* linux/pidfd.h since Linux 6.13, its first published size. */
struct pidfd_info {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t ids[11];
	int32_t exit_code;
};
#define PIDFD_GET_INFO _IOWR(0xff, 11, struct pidfd_info)
#define PIDFD_INFO_EXIT (1ull << 3) /* Linux 6.15 */

static bool pidfd_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[pidfd]") || !strncmp(fd->link, "pidfd:[", 7);
}

/* --- dump --------------------------------------------------------------------- */

static bool is_thread_of_tree(const struct tree *tree, pid_t tid)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		for (size_t j = 0; j < tree->processes[i]->n_tasks; j++)
			if (tree->processes[i]->tasks[j]->tid == tid)
				return true;
	return false;
}

/* How it ended; 0, as if by exit(0), where the kernel does not tell any more. */
static int exit_status(int fd)
{
	struct pidfd_info info = {.mask = PIDFD_INFO_EXIT};
	if (ioctl(fd, PIDFD_GET_INFO, &info) < 0 || !(info.mask & PIDFD_INFO_EXIT))
		return 0;
	return info.exit_code;
}

static int pidfd_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_pidfd *state = out;
	const struct tree *tree = dump_tree(fd->dump);
	uint64_t pid;
	if (!fdinfo_number(fd->info, "Pid", 10, &pid))
		return refuse_fd(fd, err, "The kernel does not say which process it means.", "a pidfd");
	state->pid = (int)(int64_t)pid;
	state->thread = (fd->flags & THREAD) != 0;
	if (state->pid == 0)
		return refuse_fd(fd, err, "Close it before the dump.",
				 "a pidfd of a process in another PID namespace");
	if (state->pid < 0) {
		state->status = exit_status(fd->dup);
		return 0;
	}
	if (tree_find(tree, state->pid) || (state->thread && is_thread_of_tree(tree, state->pid)))
		return 0;
	return refuse_fd(fd, err, "Dump a process that has both in its tree, or have it closed first.",
			 "a pidfd of process %d, which is outside the tree", state->pid);
}

/* --- restore -------------------------------------------------------------------- */

_Noreturn static void end_as(int status)
{
	if (WIFSIGNALED(status)) {
		sigset_t none;
		sigemptyset(&none);
		signal(WTERMSIG(status), SIG_DFL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		syscall(SYS_kill, syscall(SYS_getpid), WTERMSIG(status));
	}
	syscall(SYS_exit_group, WEXITSTATUS(status));
	__builtin_unreachable();
}

/* A process that has ended and was waited for. No signal tells of its end: the caller's handlers
 * know nothing of it. */
static int make_ended(const image_file_pidfd *state)
{
	pid_t child = (pid_t)syscall(SYS_clone, 0ul, NULL, NULL, NULL, 0ul);
	if (child == 0)
		end_as(state->status);
	siginfo_t info;
	if (child < 0 || waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT | __WALL) < 0)
		return -1;
	int fd = (int)syscall(SYS_pidfd_open, child, state->thread ? THREAD : 0), sys = errno;
	waitpid(child, NULL, __WALL);
	errno = sys;
	return fd;
}

static bool pidfd_is_late(const void *state)
{
	return ((const image_file_pidfd *)state)->pid > 0;
}

static int pidfd_make(struct restore *restore, const image_file *file, const void *in,
		      struct fsnap_error *err)
{
	(void)restore;
	int fd = pidfd_is_late(in) ? eventfd(0, EFD_CLOEXEC) : make_ended(in);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: pidfd", file->id);
	if (pidfd_is_late(in) || !(file->flags & O_NONBLOCK) || fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
		return fd;
	fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: pidfd that does not block", file->id);
	close(fd);
	return -1;
}

static int pidfd_make_late(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err)
{
	const image_file_pidfd *state = in;
	unsigned flags = (state->thread ? THREAD : 0) | (file->flags & O_NONBLOCK);
	int fd = (int)syscall(SYS_pidfd_open, restore_number(restore, state->pid), flags);
	return fd < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: pidfd of process %d", file->id, state->pid) : fd;
}

static uint32_t pidfd_arrive(struct restore *restore, const image_file *file, const void *in,
			     struct plans *plans, uint32_t task)
{
	(void)restore;
	const image_file_pidfd *state = in;
	unsigned flags = (state->thread ? THREAD : 0) | (file->flags & O_NONBLOCK);
	plan_call(plans, task, SYS_pidfd_open, plan_number(plans, task, state->pid), IMM(flags));
	return plan_result(plans);
}

const struct file_kind kind_pidfd = {
	.name = "pidfd",
	.keeps = "processes and threads of the tree, ended ones included; who shares it",
	.refuses = "processes outside the tree",
	.shown_by = "pidfd_*",
	.xdr = (xdrproc_t)xdr_image_file_pidfd,
	.own_flags = true,
	.matches = pidfd_matches,
	.save = pidfd_save,
	.make = pidfd_make,
	.is_late = pidfd_is_late,
	.arrive = pidfd_arrive,
	.make_late = pidfd_make_late,
};
