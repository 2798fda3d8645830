#include "engine/voice.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/procfs.h"
#include "engine/told.h"
#include "store/scope.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* Linux 6.9 */
#endif

/* Between losing its memory and being a zombie a process is neither; it does not last. */
#define NAP_US 100
#define PATIENCE 10000 /* naps: some second */
#define TURNS 20

void voice_note(struct process *process, const struct procfs_stat *stat)
{
	memcpy(process->comm, stat->comm, sizeof(process->comm));
	process->image.zombie = !process->image.leader_ended && (stat->state == 'Z' || stat->state == 'X');
	process->image.wait_status = stat->exit_code;
	process->image.exit_signal = stat->exit_signal;
	process->image.pgid = stat->pgid;
	process->image.sid = stat->sid;
	process->image.terminal = stat->terminal;
}

static bool has_memory(int proc, const char *name)
{
	cleanup_free char *status = procfs_read_once(proc, name, NULL, NULL);
	return status && procfs_status_number(status, "VmSize") >= 0;
}

bool voice_speaks(const struct process *process)
{
	return has_memory(process->proc, "status");
}

/* A thread that has memory, the main one first; 0: none has. */
static pid_t find_speaker(int proc)
{
	size_t count;
	cleanup_free pid_t *tids = procfs_threads(proc, &count, NULL);
	for (size_t i = 0; tids && i < count; i++) {
		char name[32];
		snprintf(name, sizeof(name), "task/%d/status", tids[i]);
		if (has_memory(proc, name))
			return tids[i];
	}
	return 0;
}

/* Main thread and all others. */
static bool all_have_ended(pid_t pid)
{
	cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd end = { .fd = pidfd, .events = POLLIN };
	return pidfd < 0 ? errno == ESRCH : poll(&end, 1, 0) > 0;
}

/* Somebody speaks, or nobody is left: which is seen twice, for in the moment in which a thread that executes a program takes
 * the main thread's number there is nobody by it (procfs_open()). */
static pid_t await_speaker(pid_t pid)
{
	for (int naps = 0, ended = 0; naps < PATIENCE && ended < 2; naps++) {
		cleanup_fd int proc = procfs_open(pid, NULL);
		pid_t tid = proc >= 0 ? find_speaker(proc) : 0;
		if (tid)
			return tid;
		if (proc < 0 || all_have_ended(pid))
			ended++;
		else
			usleep(NAP_US);
	}
	return 0;
}

static int open_pidfd(struct process *process, pid_t tid, struct fsnap_error *err)
{
	int pidfd = (int)syscall(SYS_pidfd_open, tid, tid == process->pid ? 0 : PIDFD_THREAD);
	if (pidfd >= 0)
		return pidfd;
	if (errno != EINVAL)
		return fail(err, FSNAP_E_TARGET_DIED, errno, "process %d (%s)", process->pid, process->comm);
	fail(err, FSNAP_E_KERNEL_LACKS, 0, "process %d (%s): its main thread has ended while others go on", process->pid,
	     process->comm);
	return error_hint(err, "Linux 6.9 or newer lets one reach its descriptors through the others");
}

/* Whoever executes a program takes over when the process began (de_thread(), fs/exec.c). */
static bool is_somebody_else(const struct process *process, const struct procfs_stat *stat)
{
	return !process->image.leader_ended && process->start && process->start != stat->start_time;
}

static void give_voice(struct process *process, pid_t tid, int proc, int pidfd)
{
	close(process->proc);
	if (process->pidfd >= 0)
		close(process->pidfd);
	process->proc = proc;
	process->pidfd = pidfd;
	process->live = tid;
	process->prepared = false; /* that was asked of another thread, or program */
	told_close(process);
}

/* What /proc/PID and a pidfd show of a main thread that has ended is what it has, which is nothing. */
static int turn_to(struct process *process, pid_t tid, struct fsnap_error *err)
{
	struct procfs_stat stat;
	cleanup_fd int proc = procfs_open(tid, err);
	cleanup_fd int pidfd = proc >= 0 ? open_pidfd(process, tid, err) : -1;
	if (pidfd < 0 || (tid == process->pid && procfs_stat(proc, "stat", &stat, err) < 0))
		return -1;
	if (tid == process->pid && is_somebody_else(process, &stat))
		return fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) ended", process->pid, process->comm);
	process->image.leader_ended = tid != process->pid;
	if (tid == process->pid)
		voice_note(process, &stat);
	process->image.zombie = 0; /* it had memory just now, whatever became of that thread since */
	give_voice(process, tid, steal_fd(&proc), steal_fd(&pidfd));
	process->start = tid == process->pid ? stat.start_time : 0;
	return 0;
}

/* 1: another one speaks now; 0: nobody is left. Who was to speak may be gone the next moment. */
static int turn_to_speaker(struct process *process, struct fsnap_error *err)
{
	struct fsnap_error why = { 0 };
	for (int i = 0; i < TURNS; i++) {
		pid_t tid = await_speaker(process->pid);
		why = (struct fsnap_error){ 0 };
		if (!tid || turn_to(process, tid, &why) == 0)
			return tid != 0;
		if (why.code != FSNAP_E_TARGET_DIED && why.code != FSNAP_E_NO_PROCESS)
			break;
	}
	if (err)
		*err = why;
	return -1;
}

int voice_check(struct process *process, struct fsnap_error *err)
{
	if (!process->image.zombie)
		return 0;
	int turned = process->n_tasks ? turn_to(process, process->tasks[0]->tid, err) : turn_to_speaker(process, err);
	return turned < 0 ? -1 : 0;
}

static void note_zombie(struct process *process)
{
	struct procfs_stat stat;
	cleanup_fd int proc = procfs_open(process->pid, NULL);
	if (proc < 0 || procfs_stat(proc, "stat", &stat, NULL) < 0 || is_somebody_else(process, &stat))
		return;
	give_voice(process, process->pid, steal_fd(&proc), -1); /* nobody asks a zombie through one */
	process->image.leader_ended = 0;
	voice_note(process, &stat);
}

bool voice_again(struct process *process, struct fsnap_error *err)
{
	int turned = turn_to_speaker(process, err);
	if (turned == 0)
		note_zombie(process);
	return turned > 0;
}
