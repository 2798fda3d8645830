/*
 * Locks on files: flock, POSIX record locks and open-file-description locks are
 * still held, so that nobody else can take them, by those who held them.
 *
 * harness: may-refuse
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>

static struct flock record(short type, off_t start)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 10
	};
}

/* Somebody else: a process that tries the lock and says whether it was refused. */
static bool refused_elsewhere(const char *path, int kind, off_t start)
{
	pid_t pid = MUST(fork());
	if (pid == 0) {
		int fd = open(path, O_RDWR);
		struct flock want = record(F_WRLCK, start);
		int result = kind == 0 ? flock(fd, LOCK_EX | LOCK_NB) : fcntl(fd, F_SETLK, &want);
		_exit(result == 0 ? 0 : errno == EAGAIN || errno == EACCES ? 1 : 2);
	}
	int status = -1;
	MUST(waitpid(pid, &status, 0));
	return status >> 8 == 1;
}

int main(void)
{
	char *whole = specimen_path("flock"), *parts = specimen_path("records");
	int fd = MUST(open(whole, O_RDWR | O_CREAT, 0600));
	int records = MUST(open(parts, O_RDWR | O_CREAT, 0600));
	MUST(flock(fd, LOCK_EX));
	struct flock posix = record(F_WRLCK, 100), ofd = record(F_WRLCK, 200);
	MUST(fcntl(records, F_SETLK, &posix));
	MUST(fcntl(records, F_OFD_SETLK, &ofd));

	while (specimen_round()) {
		specimen_ready();
		expect_int("flock is held", 1, refused_elsewhere(whole, 0, 0));
		expect_int("the record lock is held", 1, refused_elsewhere(parts, 1, 100));
		expect_int("the description's lock is held", 1, refused_elsewhere(parts, 1, 200));
		expect_int("what nobody locked is free", 0, refused_elsewhere(parts, 1, 300));
		/* They are ours: we can let go of them and take them again. */
		expect_ok("unlock", flock(fd, LOCK_UN));
		expect_int("flock is free", 0, refused_elsewhere(whole, 0, 0));
		expect_ok("lock", flock(fd, LOCK_EX));
		struct flock free_it = record(F_UNLCK, 100);
		expect_ok("unlock the record", fcntl(records, F_SETLK, &free_it));
		expect_int("the record is free", 0, refused_elsewhere(parts, 1, 100));
		expect_ok("lock the record", fcntl(records, F_SETLK, &posix));
	}
	return specimen_end();
}
