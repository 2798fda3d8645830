/*
 * restoring.c - what it takes to make processes as they were.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/sched.h>

#include "engine/doctor/doctor.h"

#define GROUP "Restoring"
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* A number that was free a moment ago: that of a child that has ended and was waited for. */
static void choose_pid(struct finding *finding, const char *store)
{
	(void)store;
	pid_t pid = subject_start(NULL);
	if (pid < 0) {
		find_result(finding, false, FSNAP_CHECK_LACKS);
		return;
	}
	subject_end(pid);
	struct clone_args args = { .set_tid = (uintptr_t)&pid, .set_tid_size = 1 };
	long made = syscall(SYS_clone3, &args, sizeof(args));
	if (made == 0)
		_exit(0);
	find_result(finding, made == pid || (made < 0 && errno == EEXIST), FSNAP_CHECK_LACKS);
	if (made > 0)
		waitpid((pid_t)made, NULL, __WALL);
}

static void pid_namespace(struct finding *finding, const char *store)
{
	(void)store;
	bool root = has_capability(CAP_SYS_ADMIN);
	find_result(finding, unshare(root ? CLONE_NEWPID : CLONE_NEWUSER | CLONE_NEWPID) == 0, FSNAP_CHECK_LACKS);
	if (finding->state == FSNAP_CHECK_GOOD && !root)
		find(finding, FSNAP_CHECK_GOOD, "inside a user namespace");
}

static void time_namespace(struct finding *finding, const char *store)
{
	(void)store;
	bool root = has_capability(CAP_SYS_ADMIN);
	find_result(finding, unshare(root ? CLONE_NEWTIME : CLONE_NEWUSER | CLONE_NEWTIME) == 0, FSNAP_CHECK_LACKS);
	if (finding->state == FSNAP_CHECK_GOOD && !root)
		find(finding, FSNAP_CHECK_PARTLY, "inside a user namespace only");
}

/* Users, groups, capabilities, limits, priorities: each as the program had it, if that is more than we have. */
static void rights(struct finding *finding, const char *store)
{
	(void)store;
	static const struct {
		unsigned number;
		const char *name;
	} wanted[] = { { CAP_SETUID, "SETUID" }, { CAP_SETGID, "SETGID" }, { CAP_SETPCAP, "SETPCAP" },
		       { CAP_SYS_NICE, "SYS_NICE" }, { CAP_SYS_RESOURCE, "SYS_RESOURCE" },
		       { CAP_IPC_LOCK, "IPC_LOCK" }, { CAP_SYS_ADMIN, "SYS_ADMIN" },
		       { CAP_NET_ADMIN, "NET_ADMIN" } };
	char missing[160] = "";
	size_t n = 0;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		if (!has_capability(wanted[i].number)) {
			size_t length = strlen(missing);
			snprintf(missing + length, sizeof(missing) - length, " CAP_%s", wanted[i].name);
			n++;
		}
	if (n)
		find(finding, n == 1 ? FSNAP_CHECK_PARTLY : FSNAP_CHECK_LACKS, "without%s", missing);
	else
		find(finding, FSNAP_CHECK_GOOD, "can be given back, whatever they were");
	if (n && geteuid() == 0)
		snprintf(finding->remedy, sizeof(finding->remedy),
			 "you are root: whoever started this container or service withholds it (docker run --cap-add, "
			 "CapabilityBoundingSet= of systemd)");
}

static void control_groups(struct finding *finding, const char *store)
{
	(void)store;
	bool two = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0;
	const char *place = two ? "/sys/fs/cgroup" : "/sys/fs/cgroup/systemd";
	if (access(place, F_OK) < 0 && !two)
		place = "/sys/fs/cgroup";
	find_result(finding, access(place, W_OK) == 0, FSNAP_CHECK_LACKS);
}

const struct check checks_of_restoring[] = {
	{ GROUP, "choosing process IDs", choose_pid, true, "programs come back under other process IDs only (restore --new-pids)",
	  "run fsnap as root, or give it CAP_CHECKPOINT_RESTORE (Linux 5.9), or work inside `unshare -Urpf --mount-proc`" },
	{ GROUP, "PID namespaces", pid_namespace, true, "copies cannot each have the PIDs of the original",
	  "as root: sysctl kernel.unprivileged_userns_clone=1 user.max_pid_namespaces=1024" },
	{ GROUP, "time namespaces", time_namespace, true,
	  "after another boot CLOCK_MONOTONIC jumps: timers by absolute times expire at other moments",
	  "run fsnap as root; if you do, the kernel has none (CONFIG_TIME_NS)" },
	{ GROUP, "users and capabilities", rights, false,
	  "not restored are programs that had such a capability, or what it is for: another user (SETUID, SETGID), higher "
	  "limits (SYS_RESOURCE), priorities (SYS_NICE); all others are", "run fsnap as root" },
	{ GROUP, "control groups", control_groups, false, "--cgroup create and rejoin do not work",
	  "run fsnap as root, or have a group delegated (systemd-run --user -p Delegate=yes)" },
	{ 0 },
};
