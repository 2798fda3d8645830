/*
 * perm.c - what all System V objects have in common: a number, a key, and who made them.
 */
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/ipc/ipc.h"
#include "store/scope.h"

/* --- dump ---------------------------------------------------------------------------- */

bool ipc_was_there(struct dump *dump, pid_t pid, time_t when)
{
	const struct process *process = pid > 0 ? tree_find(&dump->tree, pid) : NULL;
	struct procfs_stat stat;
	struct timespec real, boot;
	if (!process || process->image.zombie ||
	    procfs_stat(process->proc, "stat", &stat, NULL) < 0)
		return false;
	clock_gettime(CLOCK_REALTIME, &real);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	long born = (long)(stat.start_time / (unsigned long)sysconf(_SC_CLK_TCK));
	/* Either clock is rounded to seconds. */
	return when + 1 >= real.tv_sec - boot.tv_sec + born - 1;
}

bool ipc_alive(pid_t pid)
{
	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

bool ipc_stranger(const struct dump *dump, pid_t pid)
{
	return !tree_find(&dump->tree, pid) && ipc_alive(pid);
}

bool ipc_awaited(const struct dump *dump, int id, long call, long other)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		for (size_t j = 0; j < process->n_tasks && !process->image.zombie; j++) {
			const struct user_regs_struct *regs = &process->tasks[j]->regs;
			if (((long)regs->orig_rax == call || (long)regs->orig_rax == other) &&
			    (int)regs->rdi == id)
				return true;
		}
	}
	return false;
}

bool ipc_could_be(struct dump *dump, const struct ipc_perm *perm, time_t when)
{
	if (!ipc_was_there(dump, dump->tree.processes[0]->pid, when))
		return false;
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		for (size_t j = 0; j < process->n_tasks; j++)
			if (process->tasks[j]->image.creds.uid[1] == perm->cuid)
				return true;
	}
	return false;
}

image_ipc_perm ipc_perm(int id, const struct ipc_perm *perm)
{
	return (image_ipc_perm){
		.id = id,
		.key = (unsigned)perm->__key,
		.mode = perm->mode & 0777,
		.uid = perm->uid,
		.gid = perm->gid,
		.cuid = perm->cuid,
		.cgid = perm->cgid,
	};
}

/* --- restore --------------------------------------------------------------------------- */

/* fork(2), but with a number, and without a SIGCHLD that would surprise whoever uses the library. */
static pid_t fork_as(pid_t pid)
{
	struct clone_args args = { 0 };
	if (pid > 0) {
		args.set_tid = (uintptr_t)&pid;
		args.set_tid_size = 1;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* The system calls themselves: the C library's functions speak for all threads of a process, but the
 * others are not in this one. */
static int stand_in(unsigned uid, unsigned gid, int (*work)(void *), void *arg)
{
	/* Rights stay although the user is another. */
	prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
	if (syscall(SYS_setresgid, -1, gid, -1) < 0 || syscall(SYS_setresuid, -1, uid, -1) < 0)
		return -errno;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* another user has taken it back */
	return work(arg);
}

int ipc_as(pid_t pid, unsigned uid, unsigned gid, int (*work)(void *), void *arg)
{
	int result = -EIO, ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	cleanup_fd int in = ends[0], out = ends[1];
	pid_t child = fork_as(pid);
	if (child < 0 && pid > 0)
		child = fork_as(0); /* the number is somebody else's now */
	if (child < 0)
		return -errno;
	if (child == 0) {
		result = stand_in(uid, gid, work, arg);
		_exit(write(out, &result, sizeof(result)) != sizeof(result));
	}
	close(steal_fd(&out));
	ssize_t n;
	while ((n = read(in, &result, sizeof(result))) < 0 && errno == EINTR)
		;
	while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
	return n == sizeof(result) ? result : -EIO;
}

/* proc(5): needs CONFIG_CHECKPOINT_RESTORE and CAP_CHECKPOINT_RESTORE. */
int ipc_choose_id(const char *sort, int id)
{
	char path[48], text[16];
	snprintf(path, sizeof(path), "/proc/sys/kernel/%s_next_id", sort);
	cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	int length = snprintf(text, sizeof(text), "%d", id);
	return fd < 0 || write(fd, text, (size_t)length) != length ? -errno : 0;
}

void ipc_takes_back(struct restore *restore, const image_ipc_perm *perm, unsigned key, void (*remove)(const char *name))
{
	char name[32];
	snprintf(name, sizeof(name), "%d %u", perm->id, key);
	restore_takes_back(restore, remove, name);
}

int ipc_named(const char *name, unsigned *key)
{
	char *end;
	int id = (int)strtol(name, &end, 10);
	*key = (unsigned)strtoul(end, NULL, 10);
	return id;
}

int ipc_not_made(const char *what, const image_ipc_perm *perm, int sys, struct fsnap_error *err)
{
	fail(err, FSNAP_E_RESTORE_STEP, sys, "%s %d (key 0x%x) cannot be made", what, perm->id,
	     perm->key);
	if (sys == EEXIST)
		return error_hint(
			err, "another one has its key or its number: remove it (ipcs, ipcrm), or "
			     "restore in an IPC namespace of its own (fsnap restore --ipc-ns)");
	if (sys == ENOSPC || sys == EINVAL)
		return error_hint(err, "raise the limits that `ipcs -l` shows (sysctl kernel.shm*, "
				       "kernel.sem, kernel.msg*)");
	if (sys == ENOENT)
		return error_hint(err, "its number cannot be chosen: the kernel lacks "
				       "CONFIG_CHECKPOINT_RESTORE");
	return error_hint(err, "restore as root");
}

int ipc_in_use(const char *what, const image_ipc_perm *perm, const char *how,
	       struct fsnap_error *err)
{
	fail(err, FSNAP_E_RESTORE_STEP, 0, "%s %d (key 0x%x) exists, and %s", what, perm->id,
	     perm->key, how);
	return error_hint(err,
			  "end who uses it and remove it (ipcs -p, ipcrm), or restore in an IPC "
			  "namespace of its own (unshare --ipc)");
}

int ipc_leave_alone(struct restore *restore, bool certain, const struct fsnap_error *why,
		    struct fsnap_error *err)
{
	if (certain) {
		*err = *why;
		return -1;
	}
	restore_note(restore, "left alone, for the program has not used it: %s", why->message);
	return 0;
}
