#include "engine/namespaces.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/notes.h"
#include "engine/procfs.h"
#include "store/error.h"
#include "store/scope.h"

/* What process 1 tells the caller. */
struct answer {
	int result;
	struct fsnap_restore_report report;
	struct fsnap_error err;
};

static int cannot(const char *what, const char *option, struct fsnap_error *err)
{
	int sys = errno;
	fail(err, sys == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_SYSTEM, sys, "%s", what);
	if (sys == EPERM || sys == EACCES)
		return error_hint(err, "namespaces need CAP_SYS_ADMIN: restore as root, or inside a user namespace "
				       "(--user-ns)%s", option);
	if (sys == ENOSPC || sys == EUSERS)
		return error_hint(err, "raise the limit: sysctl user.max_pid_namespaces, user.max_net_namespaces, ...");
	return -1;
}

/* --- a network and IPC of its own ------------------------------------------------------- */

static int raise_loopback(struct fsnap_error *err)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? cannot("the new network's loopback", "", err) : 0;
}

static int enter(const struct fsnap_restore_options *options, struct fsnap_error *err)
{
	int flags = (options->net_ns ? CLONE_NEWNET : 0) | (options->ipc_ns ? CLONE_NEWIPC : 0);
	if (unshare(flags) < 0)
		return cannot("a network or IPC namespace", "", err);
	return options->net_ns ? raise_loopback(err) : 0;
}

/* The root must be a child of the caller: the thread itself goes there, and comes back. */
static int restore_there(const struct fsnap_restore_options *options, restore_fn restore,
			 struct fsnap_restore_report *report, struct fsnap_error *err)
{
	cleanup_fd int net = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	cleanup_fd int ipc = open("/proc/thread-self/ns/ipc", O_RDONLY | O_CLOEXEC);
	if (net < 0 || ipc < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "our namespaces");
	int result = enter(options, err) < 0 ? -1 : restore(options, report, err);
	if ((options->net_ns && setns(net, CLONE_NEWNET) < 0) || (options->ipc_ns && setns(ipc, CLONE_NEWIPC) < 0))
		return fail(err, FSNAP_E_SYSTEM, errno, "the way back into our namespaces");
	return result;
}

/* --- process 1 ----------------------------------------------------------------------------- */

static int write_text(const char *path, const char *text)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t size = (ssize_t)strlen(text);
	return fd >= 0 && write(fd, text, (size_t)size) == size ? 0 : -1;
}

/* Everybody is who they were; the maker has all capabilities inside. */
static int make_user_namespace(struct fsnap_error *err)
{
	char users[64], groups[64];
	snprintf(users, sizeof(users), "%u %u 1", geteuid(), geteuid());
	snprintf(groups, sizeof(groups), "%u %u 1", getegid(), getegid());
	if (unshare(CLONE_NEWUSER) < 0) {
		fail(err, FSNAP_E_PERMISSION, errno, "a user namespace");
		return error_hint(err, "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
				       "kernel.apparmor_restrict_unprivileged_userns");
	}
	if (write_text("/proc/self/setgroups", "deny") < 0 || write_text("/proc/self/uid_map", users) < 0 ||
	    write_text("/proc/self/gid_map", groups) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "users of the user namespace");
	return 0;
}

static int make_namespaces(const struct fsnap_restore_options *options, struct fsnap_error *err)
{
	int flags = CLONE_NEWPID | CLONE_NEWNS | (options->net_ns ? CLONE_NEWNET : 0) |
		    (options->ipc_ns ? CLONE_NEWIPC : 0);
	if (options->user_ns && make_user_namespace(err) < 0)
		return -1;
	if (unshare(flags) < 0)
		return cannot("a PID namespace", "", err);
	return options->net_ns ? raise_loopback(err) : 0;
}

static int mount_proc(struct fsnap_error *err)
{
	if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return cannot("/proc of the new PID namespace", "", err);
	return 0;
}

static void tell(int line, const struct answer *answer, pid_t root)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
				  .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec part = { (void *)answer, sizeof(*answer) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	int pidfd = answer->result == 0 ? (int)syscall(SYS_pidfd_open, root, 0) : -1;
	if (pidfd >= 0) {
		memcpy(CMSG_DATA(&control.header), &pidfd, sizeof(pidfd));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.bytes);
	}
	sendmsg(line, &message, MSG_NOSIGNAL);
	if (pidfd >= 0)
		close(pidfd);
}

/* Ends with the root's status: a namespace's first process cannot die of a signal of its own. */
_Noreturn static void be_init(pid_t root)
{
	siginfo_t info;
	sigset_t all;
	sigfillset(&all);
	for (;;) {
		int status;
		for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG | __WALL)) > 0;)
			if (ended == root)
				_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		if (sigwaitinfo(&all, &info) > 0 && info.si_signo != SIGCHLD)
			kill(root, info.si_signo);
	}
}

/* The root's tree holds its own; what of ours would keep files and terminals open is closed. */
static void hold_nothing(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	close_range(3, ~0u, 0);
}

_Noreturn static void run_init(const struct fsnap_restore_options *options, restore_fn restore, int line)
{
	static struct answer answer; /* a process of its own: nobody else's */
	struct fsnap_restore_options inside = *options;
	sigset_t all;
	sigfillset(&all);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	inside.pids = FSNAP_PIDS_SAME;
	inside.wipe = 1; /* who has a world of its own is a copy */
	inside.pidfd = inside.pid_ns = inside.net_ns = inside.ipc_ns = inside.user_ns = 0;
	answer.report.pidfd = -1;
	signal(SIGCHLD, SIG_DFL);
	answer.result = mount_proc(&answer.err) < 0 ? -1 : restore(&inside, &answer.report, &answer.err);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_PDEATHSIG, 0);
	prctl(PR_SET_NAME, "fsnap-init");
	tell(line, &answer, answer.report.pid);
	if (answer.result < 0)
		_exit(1);
	pid_t root = answer.report.pid;
	hold_nothing();
	/* Nobody outside is told when the root stops: its group is to be an orphaned one, which Ctrl-Z does not stop. */
	setsid();
	be_init(root);
}

/* The process between: it makes the namespaces, and process 1 as its own sister. */
_Noreturn static void make_init(const struct fsnap_restore_options *options, restore_fn restore, int line)
{
	static struct answer answer;
	answer.result = make_namespaces(options, &answer.err);
	struct clone_args args = { .flags = CLONE_PARENT };
	long init = answer.result < 0 ? 0 : syscall(SYS_clone3, &args, sizeof(args));
	if (answer.result == 0 && init == 0)
		run_init(options, restore, line);
	if (init < 0)
		answer.result = fail(&answer.err, FSNAP_E_SYSTEM, errno, "process 1 of a PID namespace");
	if (answer.result < 0)
		tell(line, &answer, 0);
	pid_t number = (pid_t)init;
	if (init > 0)
		send(line, &number, sizeof(number), MSG_NOSIGNAL);
	_exit(0);
}

/* --- the caller ------------------------------------------------------------------------------ */

/* The number of init, and what it has to say; or an error. */
static int listen_to(int line, struct answer *answer, pid_t *init, int *pidfd)
{
	cleanup_free char *bytes = malloc(sizeof(*answer));
	bool answered = false;
	while (bytes && (!answered || (!*init && answer->result == 0))) {
		union {
			struct cmsghdr header;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec part = { bytes, sizeof(*answer) };
		struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
					  .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(line, &message, MSG_CMSG_CLOEXEC);
		const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		if (got == sizeof(*init))
			memcpy(init, bytes, sizeof(*init));
		if (got == sizeof(*answer)) {
			memcpy(answer, bytes, sizeof(*answer));
			answered = true;
		}
		if (got == sizeof(*answer) && header)
			memcpy(pidfd, CMSG_DATA(header), sizeof(*pidfd));
		if (got == 0 || (got < 0 && errno != EINTR))
			break;
	}
	return answered ? 0 : -1;
}

static pid_t number_of(int pidfd)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	cleanup_free char *text = procfs_read_once(AT_FDCWD, path, NULL, NULL);
	const char *line = text ? strstr(text, "Pid:") : NULL;
	return line ? atoi(line + 4) : 0;
}

static int restore_below_init(const struct fsnap_restore_options *options, restore_fn restore,
			      struct fsnap_restore_report *report, struct fsnap_error *err)
{
	int ends[2];
	cleanup_free struct answer *answer = calloc(1, sizeof(*answer));
	if (!answer || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a PID namespace");
	cleanup_fd int ours = ends[0], theirs = ends[1], root = -1;
	pid_t between = fork();
	if (between == 0) {
		close(ours);
		make_init(options, restore, theirs);
	}
	if (between < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a PID namespace");
	close(theirs);
	theirs = -1;
	pid_t init = 0;
	int result = listen_to(ours, answer, &init, &root);
	waitpid(between, NULL, 0);
	if (result == 0 && answer->result == 0 && root >= 0) {
		*report = answer->report;
		report->prefetching = NULL; /* it is of that process */
		report->root = number_of(root);
		report->pid = init;
		return 0;
	}
	if (init > 0 && waitpid(init, NULL, 0) < 0)
		init = 0;
	if (result < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, 0, "process 1 of the PID namespace ended without a word");
	if (err)
		*err = answer->err;
	return -1;
}

int namespaces_restore(const struct fsnap_restore_options *options, restore_fn restore,
		       struct fsnap_restore_report *report, struct fsnap_error *err)
{
	if (options->pid_ns || options->user_ns)
		return restore_below_init(options, restore, report, err);
	return restore_there(options, restore, report, err);
}
