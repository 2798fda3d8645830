/*
 * Who waits for a lock goes on waiting for it, and gets it when its holder lets go:
 * in fcntl(F_SETLKW), fcntl(F_OFD_SETLKW) and flock(2), on a named file, a deleted
 * one, a directory and a memfd. Many ranges of one file are held by several
 * processes, each its own; one holds a write lock and has the file open to read
 * under a lower number as well.
 *
 * harness: differs=deleted
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { RANGES = 200, LOCKED = 4 };

static int fds[LOCKED], ranges, end[2];

static struct flock range_of(short type, off_t start, off_t length)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
}

/* What each waiter waits for. Its own open file description, where that matters. */
static int wait_for(int which)
{
	struct flock whole = range_of(F_WRLCK, 0, 0);
	char link[64];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fds[which]);
	int own = which == 2 ? open(link, O_RDONLY) : open(link, O_RDWR);
	switch (which) {
	case 0:
		return fcntl(own, F_SETLKW, &whole);
	case 1:
		return fcntl(own, F_OFD_SETLKW, &whole);
	default:
		return flock(own, LOCK_EX);
	}
}

static void hold(int which)
{
	struct flock whole = range_of(F_WRLCK, 0, 0);
	if (which == 0)
		MUST(fcntl(fds[0], F_SETLK, &whole));
	else if (which == 1)
		MUST(fcntl(fds[1], F_OFD_SETLK, &whole));
	else
		MUST(flock(fds[which], LOCK_EX));
}

static void let_go(int which)
{
	struct flock whole = range_of(F_UNLCK, 0, 0);
	if (which < 2)
		expect_ok("unlock", fcntl(fds[which], which ? F_OFD_SETLK : F_SETLK, &whole));
	else
		expect_ok("unlock", flock(fds[which], LOCK_UN));
}

/* Another process with locks of its own between ours. */
static void neighbour(void)
{
	for (int i = 1; i < RANGES; i += 2) {
		struct flock lock = range_of(i % 3 ? F_WRLCK : F_RDLCK, i * 10, 5);
		MUST(fcntl(ranges, F_SETLK, &lock));
	}
	while (specimen_child_round())
		for (int i = 0; i < RANGES; i += 2) {
			struct flock lock = range_of(F_WRLCK, i * 10, 5);
			expect_ok("ask who holds a range", fcntl(ranges, F_GETLK, &lock));
			expect_int("the other process does", getppid(), lock.l_pid);
			expect_int("all of it", 5, lock.l_len);
		}
	/* Until the first process has looked at our locks. */
	char byte;
	close(end[1]);
	MUST(read(end[0], &byte, 1));
	_exit(0);
}

static void expect_ranges(pid_t other)
{
	for (int i = 1; i < RANGES; i += 2) {
		struct flock lock = range_of(F_WRLCK, i * 10, 5);
		expect_ok("ask who holds a range", fcntl(ranges, F_GETLK, &lock));
		expect_int("the neighbour does", other, lock.l_pid);
		expect_int("to read or to write", i % 3 ? F_WRLCK : F_RDLCK, lock.l_type);
		lock = range_of(F_WRLCK, i * 10 + 5, 5);
		expect_ok("ask about a gap", fcntl(ranges, F_GETLK, &lock));
		expect_int("nobody does", F_UNLCK, lock.l_type);
	}
}

int main(void)
{
	char *gone = specimen_path("gone"), *path = specimen_path("ranges");
	fds[0] = MUST(open(specimen_path("named"), O_RDWR | O_CREAT, 0600));
	fds[1] = MUST(open(gone, O_RDWR | O_CREAT, 0600));
	MUST(unlink(gone));
	fds[2] = MUST(open(specimen_path("dir"), O_RDONLY | O_DIRECTORY));
	fds[3] = MUST(memfd_create("locked", 0));
	close(MUST(open(path, O_RDWR | O_CREAT, 0600)));
	MUST(open(path, O_RDONLY)); /* a lower number: no good for a write lock */
	ranges = MUST(open(path, O_RDWR));
	for (int i = 0; i < RANGES; i += 2) {
		struct flock lock = range_of(F_WRLCK, i * 10, 5);
		MUST(fcntl(ranges, F_SETLK, &lock));
	}
	MUST(pipe(end));
	pid_t other = MUST(fork());
	if (other == 0)
		neighbour();

	while (specimen_round()) {
		pid_t waiting[LOCKED];
		for (int i = 0; i < LOCKED; i++) {
			hold(i);
			waiting[i] = MUST(fork());
			if (waiting[i] == 0 && close(end[1]) == 0)
				_exit(wait_for(i) == 0 ? 7 : 8);
		}
		for (int i = 0; i < LOCKED; i++)
			until_asleep(waiting[i]);
		specimen_ready();
		for (int i = 0; i < LOCKED; i++) {
			int status = -1;
			expect_int("it waits", 0, waitpid(waiting[i], &status, WNOHANG));
			let_go(i);
			expect_int("it ends", waiting[i], waitpid(waiting[i], &status, 0));
			expect_int("it got the lock", 7, WEXITSTATUS(status));
		}
		expect_ranges(other);
		specimen_await(1);
	}
	close(end[1]);
	waitpid(other, NULL, 0);
	return specimen_end();
}
