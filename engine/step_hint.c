/*
 * step_hint.c - what the user can do about an operation of a restore that the kernel refused.
 */
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "engine/doctor/doctor.h"
#include "engine/restore.h"

static const struct {
	long nr;
	int sys;
	const char *hint;
} hints[] = {
	{ SYS_sched_setattr, EPERM,
	  "real-time policies and lower niceness need CAP_SYS_NICE (or RLIMIT_RTPRIO, RLIMIT_NICE), with "
	  "CONFIG_RT_GROUP_SCHED also a cgroup with real-time budget (cpu.rt_runtime_us); deadline threads must be "
	  "allowed on all CPUs" },
	{ SYS_sched_setattr, EBUSY, "there is no room for one more deadline thread: end another, or raise "
				    "/proc/sys/kernel/sched_rt_runtime_us" },
	{ SYS_setpriority, EACCES, "lower niceness needs CAP_SYS_NICE, or RLIMIT_NICE: do not run fsnap niced" },
	{ SYS_fcntl, EINVAL, "leases may be switched off: sysctl fs.leases-enable=1; not every file system has them" },
	{ SYS_fcntl, EAGAIN, "end who has the file open, or has a lock on it" },
	{ SYS_io_setup, EAGAIN, "raise the number of asynchronous requests there may be: sysctl fs.aio-max-nr" },
	{ SYS_mmap, ENOMEM, "raise the limits: ulimit -v, ulimit -l, sysctl vm.max_map_count, or memory itself" },
	{ SYS_ioprio_set, EPERM, "real-time I/O priority needs CAP_SYS_NICE" },
};

/* What it runs at is what the tasks begin with. */
static int niced(long nr, int sys, struct fsnap_error *err)
{
	int nice = getpriority(PRIO_PROCESS, 0);
	if (nice <= 0 || has_capability(CAP_SYS_NICE) || !((nr == SYS_sched_setattr && sys == EPERM) || (nr == SYS_setpriority && sys == EACCES)))
		return 0;
	return error_hint(err, "fsnap runs at nice %d, and who has neither CAP_SYS_NICE nor RLIMIT_NICE cannot have the tree at a lower one "
			       "again: start fsnap without nice(1), or by root",
			  nice);
}

int step_hint(long nr, int sys, struct fsnap_error *err)
{
	if (niced(nr, sys, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
		if (hints[i].nr == nr && hints[i].sys == sys)
			return error_hint(err, "%s", hints[i].hint);
	return -1;
}
