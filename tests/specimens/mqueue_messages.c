/*
 * POSIX message queues: attributes; messages in order, by priority, large ones too; a queue that was
 * removed; descriptors for reading, for writing and without blocking; one open file shared with a
 * child; and who is to be notified, with which value.
 */
#include "specimen.h"

#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <sys/stat.h>

enum { SIZE = 8192 };
static char large[SIZE];

static const char *next(mqd_t queue, unsigned *priority)
{
	static char text[SIZE + 1];
	ssize_t n = mq_receive(queue, text, SIZE, priority);
	text[n < 0 ? 0 : n] = '\0';
	return n < 0 ? "(nothing)" : text;
}

static void expect_next(mqd_t queue, const char *expected, unsigned priority)
{
	unsigned seen = 0;
	expect_text("message", expected, next(queue, &seen));
	expect_int("its priority", priority, seen);
}

static void child_takes(mqd_t queue)
{
	while (specimen_child_round())
		expect_next(queue, "for the child", 9);
	_exit(specimen_end());
}

int main(void)
{
	struct mq_attr attributes = { .mq_maxmsg = 8, .mq_msgsize = SIZE }, seen;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1,
				  .sigev_value.sival_ptr = (void *)0x123456789a };
	struct timespec patience = { .tv_sec = 5 };
	char name[64], other[64], third[64];
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	snprintf(name, sizeof(name), "/fsnap-specimen-%d", getuid());
	snprintf(other, sizeof(other), "/fsnap-removed-%d", getuid());
	snprintf(third, sizeof(third), "/fsnap-nameless-%d", getuid());
	mq_unlink(name);
	mq_unlink(other);
	mq_unlink(third);
	mqd_t writer = MUST(mq_open(name, O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK, 0640, &attributes));
	mqd_t reader = MUST(mq_open(name, O_RDONLY | O_NONBLOCK));
	mqd_t removed = MUST(mq_open(other, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes));
	mqd_t nameless = MUST(mq_open(third, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes));
	MUST(mq_unlink(third)); /* named ones stay in the kernel with what is in them: this one cannot */
	mqd_t notified = MUST(mq_open(other, O_RDONLY | O_NONBLOCK));
	MUST(mq_unlink(other));
	memset(large, 'l', sizeof(large) - 1);
	fcntl(removed, F_SETFD, 0);
	/* The open file has a flag O_CLOEXEC of its own, which says nothing about the descriptor. */
	mqd_t inherited = MUST(mq_open(name, O_RDONLY | O_CLOEXEC));
	fcntl(inherited, F_SETFD, 0);
	if (MUST(fork()) == 0)
		child_takes(reader);

	while (specimen_round()) {
		siginfo_t info = { 0 };
		struct stat node = { 0 };
		MUST(mq_send(writer, "low", 3, 1));
		MUST(mq_send(writer, large, SIZE - 1, 4));
		MUST(mq_send(writer, "low too", 7, 1));
		MUST(mq_send(writer, "", 0, 0));
		MUST(mq_send(writer, "high", 4, 7));
		MUST(mq_send(writer, "for the child", 13, 9));
		MUST(mq_send(nameless, "second", 6, 2));
		MUST(mq_send(nameless, large, SIZE - 1, 5));
		MUST(mq_send(nameless, "third", 5, 2));
		MUST(mq_notify(notified, &event));
		specimen_ready();
		expect_ok("attributes", mq_getattr(writer, &seen));
		expect_between("messages", 5, 6, seen.mq_curmsgs); /* the child takes one */
		expect_int("at most", 8, seen.mq_maxmsg);
		expect_int("of bytes", SIZE, seen.mq_msgsize);
		expect_int("without blocking", O_NONBLOCK, seen.mq_flags);
		expect_ok("node", fstat(writer, &node));
		expect_hex("mode", 0640, node.st_mode & 0777);
		expect_int("owner", getuid(), node.st_uid);
		expect_int("a descriptor that stays open on exec", 0, fcntl(inherited, F_GETFD));
		expect_int("one that does not", FD_CLOEXEC, fcntl(reader, F_GETFD));
		specimen_await(1);
		expect_next(reader, "high", 7);
		expect_next(reader, large, 4);
		expect_next(reader, "low", 1);
		expect_next(reader, "low too", 1);
		expect_next(reader, "", 0);
		expect_errno("no more", EAGAIN, mq_receive(reader, large, 0, NULL) < 0 && errno == EMSGSIZE ?
							(errno = EAGAIN, -1) : 0);
		expect_next(nameless, large, 5);
		expect_next(nameless, "second", 2);
		expect_next(nameless, "third", 2);
		expect_errno("a reader does not write", EBADF, mq_send(reader, "x", 1, 0));
		expect_errno("nor is the other one notified", EBUSY, mq_notify(removed, &event));
		expect_ok("into the removed one", mq_send(removed, "there", 5, 3));
		expect_int("the signal comes", SIGUSR1, sigtimedwait(&usr1, &info, &patience));
		expect_hex("with its value", 0x123456789a, (uintptr_t)info.si_value.sival_ptr);
		expect_next(notified, "there", 3);
		expect_errno("the removed one has no name", ENOENT, mq_open(other, O_RDONLY));
	}
	mq_unlink(name);
	return specimen_end();
}
