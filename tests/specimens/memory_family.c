/*
 * Shared memory in a tree: /dev/zero and anonymous mappings that children have inherited,
 * a memfd that a cousin was handed and has closed since, a file in /dev/shm that all have
 * opened for themselves, and a private mapping of /dev/zero. Whoever shared it shares it.
 */
#include "specimen_memory.h"

#include <sys/socket.h>
#include <sys/wait.h>

enum { MEMBERS = 4, PAGES = 3 };

struct board {
	volatile int written[MEMBERS];
};

static struct board *inherited, *zero, *named, *handed;
static char *own;

static void send_fd(int socket, int fd)
{
	char byte = 0, room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
	*head = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	MUST(sendmsg(socket, &msg, 0));
}

static int receive_fd(int socket)
{
	char byte, room[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	int fd;
	MUST(recvmsg(socket, &msg, MSG_CMSG_CLOEXEC));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

static void *map_shared(int fd)
{
	void *at = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	return at;
}

static struct board *open_named(void)
{
	int fd = MUST(open(specimen_path("named"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(ftruncate(fd, PAGES * PAGE));
	return map_shared(fd);
}

static void expect_seen(const char *what, const struct board *board, int number)
{
	for (int who = 0; who < MEMBERS; who++) {
		for (long long end = now_ms() + 5000; board->written[who] != number && now_ms() < end;)
			sleep_ms(1);
		expect_int(what, number, board->written[who]);
	}
}

static void check(int who, int number)
{
	inherited->written[who] = zero->written[who] = named->written[who] = handed->written[who] = number;
	expect_seen("inherited anonymous memory", inherited, number);
	expect_seen("inherited /dev/zero", zero, number);
	expect_seen("a file that each has opened", named, number);
	expect_seen("a memfd that was handed over", handed, number);
	expect_pattern("private /dev/zero", own, PAGES * PAGE, 100 + (uint64_t)who);
}

static void member(int who, int socket)
{
	named = open_named();
	handed = map_shared(receive_fd(socket));
	close(socket);
	pattern_fill(own, PAGES * PAGE, 100 + (uint64_t)who);
	inherited->written[who] = -1;
	for (int number = 0; specimen_child_round();)
		check(who, ++number);
	_exit(specimen_end());
}

int main(void)
{
	int fd = MUST(open("/dev/zero", O_RDWR | O_CLOEXEC)), number = 0;
	inherited = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	zero = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	own = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	MUST(close(fd));
	int memfd = MUST(memfd_create("handed", MFD_CLOEXEC));
	MUST(ftruncate(memfd, PAGES * PAGE));
	for (int who = 1; who < MEMBERS; who++) {
		int ends[2];
		MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends));
		pid_t pid = MUST(fork());
		/* The last is a grandchild, whose cousins are unrelated to it. */
		if (pid == 0 && who == MEMBERS - 1) {
			pid = MUST(fork());
			if (pid) {
				int status;
				close(ends[0]);
				close(ends[1]);
				close(memfd);
				while (specimen_child_round())
					;
				MUST(waitpid(pid, &status, 0));
				_exit(status != 0 || specimen_end() != 0);
			}
		}
		if (pid == 0) {
			close(memfd);
			close(ends[0]);
			member(who, ends[1]);
		}
		send_fd(ends[0], memfd);
		close(ends[0]);
		close(ends[1]);
	}
	named = open_named();
	handed = map_shared(memfd);
	pattern_fill(own, PAGES * PAGE, 100);
	for (int who = 1; who < MEMBERS; who++)
		while (inherited->written[who] != -1)
			sleep_ms(1);

	while (specimen_round()) {
		specimen_ready();
		check(0, ++number);
		specimen_await(MEMBERS);
	}
	for (int i = 1; i < MEMBERS; i++) {
		int status = -1;
		MUST(wait(&status));
		expect_int("a member's status", 0, status);
	}
	return specimen_end();
}
