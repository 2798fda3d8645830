/*
 * Descriptors under way in Unix sockets (SCM_RIGHTS) that need a process to be made
 * or finished again: pidfds, one that the specimen has, too; a file of /proc in
 * mid-read; a lease; a pipe that tells its owner by a signal; a locked terminal; an epoll
 * instance that watches a process. In a stream, in datagrams, and in a stream whose sender has gone; among other messages,
 * in order.
 */
#include "specimen.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MOST = 4, PART = 10 };

static volatile sig_atomic_t told;

static void on_signal(int signo)
{
	(void)signo;
	told++;
}

static void send_with(int to, const char *text, unsigned n, const int *fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(MOST * sizeof(int))] = { 0 };
	struct iovec part = { (char *)text, strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_len = CMSG_LEN(n * sizeof(int));
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(header), fds, n * sizeof(int));
	MUST(sendmsg(to, &message, 0));
}

/* The only one that has it from now on is the message. */
static void send_away(int to, const char *text, int fd)
{
	send_with(to, text, 1, &fd);
	close(fd);
}

static void expect_message(int from, const char *text, int n, int *fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(MOST * sizeof(int))];
	char buffer[64] = "";
	struct iovec part = { buffer, strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	int seen = 0;
	for (int i = 0; i < n; i++)
		fds[i] = -1;
	expect_int("bytes", (long)strlen(text), recvmsg(from, &message, MSG_DONTWAIT));
	expect_text("text", text, buffer);
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at))
		if (at->cmsg_type == SCM_RIGHTS) {
			seen = (int)((at->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(at), (size_t)seen * sizeof(int));
		}
	expect_int("descriptors", n, seen);
}

static int expect_one(int from, const char *text)
{
	int fd;
	expect_message(from, text, 1, &fd);
	return fd;
}

/* --- each of them ---------------------------------------------------------------- */

static int pidfd_of(pid_t pid)
{
	return MUST((int)syscall(SYS_pidfd_open, pid, 0));
}

/* Whatever its number is now: it is a child of ours, and lives. */
static void expect_child(int pidfd)
{
	siginfo_t info = { 0 };
	expect_ok("it is our child", waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT));
	expect_int("it lives", 0, info.si_pid);
	close(pidfd);
}

static void expect_ourselves(int pidfd, int ours)
{
	expect_int("the one that we have", 0, syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, pidfd, ours));
	int again = (int)syscall(SYS_pidfd_getfd, pidfd, ours, 0);
	expect_int("it is ourselves", 0, syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, again, ours));
	close(again);
	close(pidfd);
}

static int half_read(void)
{
	char text[PART];
	int fd = MUST(open("/proc/self/status", O_RDONLY));
	MUST(read(fd, text, PART));
	return fd;
}

static void expect_status(int fd)
{
	char text[4096] = "", wanted[32];
	expect_int("where it was read", PART, lseek(fd, 0, SEEK_CUR));
	expect_between("the rest of it", 100, sizeof(text), read(fd, text, sizeof(text) - 1));
	snprintf(wanted, sizeof(wanted), "\nPid:\t%d\n", getpid());
	expect_int("it is about us", 1, strstr(text, wanted) != NULL);
	close(fd);
}

static int leased(void)
{
	int fd = MUST(open(specimen_path("leased"), O_RDONLY | O_CREAT, 0600));
	MUST(fcntl(fd, F_SETLEASE, F_RDLCK));
	return fd;
}

static void send_owned(int to)
{
	int ends[2];
	MUST(pipe(ends));
	MUST(fcntl(ends[0], F_SETOWN, getpid()));
	MUST(fcntl(ends[0], F_SETSIG, SIGRTMIN));
	MUST(fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK));
	send_with(to, "owned", 2, ends);
	close(ends[0]);
	close(ends[1]);
}

static void expect_owned(int from)
{
	int ends[2];
	expect_message(from, "owned", 2, ends);
	expect_int("owner", getpid(), fcntl(ends[0], F_GETOWN));
	expect_int("signal", SIGRTMIN, fcntl(ends[0], F_GETSIG));
	told = 0;
	MUST(write(ends[1], "x", 1));
	for (int i = 0; i < 1000 && !told; i++)
		sleep_ms(1);
	expect_int("it is told", 1, told);
	close(ends[0]);
	close(ends[1]);
}

static void expect_locked(int fd)
{
	int locked = 0;
	expect_ok("TIOCGPTLCK", ioctl(fd, TIOCGPTLCK, &locked));
	expect_int("its other side is locked", 1, locked);
	close(fd);
}

/* An epoll instance that watches a child of its own; returns nothing: only the message has both. */
static void send_epoll(int to)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 41 };
	pid_t mortal = MUST(fork());
	if (mortal == 0)
		for (;;)
			pause();
	int fds[] = { MUST(epoll_create1(0)), pidfd_of(mortal) };
	MUST(epoll_ctl(fds[0], EPOLL_CTL_ADD, fds[1], &event));
	send_with(to, "epoll", 2, fds);
	close(fds[0]);
	close(fds[1]);
}

static void expect_epoll(int from)
{
	struct epoll_event told = { 0 };
	siginfo_t info;
	int fds[2];
	expect_message(from, "epoll", 2, fds);
	expect_int("it lives", 0, epoll_wait(fds[0], &told, 1, 0));
	expect_ok("end it", syscall(SYS_pidfd_send_signal, fds[1], SIGKILL, NULL, 0));
	expect_int("epoll is told", 1, epoll_wait(fds[0], &told, 1, 3000));
	expect_int("its data", 41, (long)told.data.u64);
	expect_ok("wait for it", waitid(P_PIDFD, (id_t)fds[1], &info, WEXITED));
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	int stream[2], packets[2], got;
	signal(SIGRTMIN, on_signal);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, packets));
	int ourselves = pidfd_of(getpid());
	pid_t child = MUST(fork());
	if (child == 0)
		for (;;)
			pause();
	int held = pidfd_of(child);
	while (specimen_round()) {
		int gone[2];
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, gone));
		MUST(send(stream[0], "before", 6, 0));
		send_away(stream[0], "child", pidfd_of(child));
		send_with(stream[0], "ourselves", 1, &ourselves);
		MUST(send(stream[0], "between", 7, 0));
		send_away(stream[0], "status", half_read());
		send_owned(stream[0]);
		send_epoll(stream[0]);
		MUST(send(stream[0], "after", 5, 0));
		send_away(packets[0], "packet", pidfd_of(child));
		send_away(packets[0], "lease", leased());
		send_away(packets[0], "terminal", MUST(posix_openpt(O_RDWR | O_NOCTTY)));
		send_away(gone[0], "gone", pidfd_of(child));
		close(gone[0]);
		specimen_ready();
		expect_message(stream[1], "before", 0, &got);
		expect_child(expect_one(stream[1], "child"));
		expect_ourselves(expect_one(stream[1], "ourselves"), ourselves);
		expect_message(stream[1], "between", 0, &got);
		expect_status(expect_one(stream[1], "status"));
		expect_owned(stream[1]);
		expect_epoll(stream[1]);
		expect_message(stream[1], "after", 0, &got);
		expect_child(expect_one(packets[1], "packet"));
		got = expect_one(packets[1], "lease");
		expect_int("lease", F_RDLCK, fcntl(got, F_GETLEASE));
		close(got);
		expect_locked(expect_one(packets[1], "terminal"));
		expect_child(expect_one(gone[1], "gone"));
		expect_int("and the end", 0, recv(gone[1], &got, 1, MSG_DONTWAIT));
		close(gone[1]);
	}
	expect_ok("pidfd_send_signal", syscall(SYS_pidfd_send_signal, held, SIGKILL, NULL, 0));
	waitpid(-1, NULL, 0);
	return specimen_end();
}
