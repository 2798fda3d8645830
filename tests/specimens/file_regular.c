/*
 * Regular files: offset, access mode, O_APPEND, close-on-exec, several opens of
 * one file that keep their own offsets, dup'ed descriptors that share one, and
 * an unusually high descriptor number.
 *
 * harness: musl
 */
#include "specimen.h"

#include <fcntl.h>

int main(void)
{
	char *path = specimen_path("data");
	char text[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	int whole = MUST(open(path, O_RDWR | O_CREAT, 0640));
	MUST(write(whole, text, sizeof(text) - 1));
	int reader = MUST(open(path, O_RDONLY | O_CLOEXEC));
	int own = MUST(open(path, O_RDONLY));
	int twin = MUST(dup(reader));
	int high = MUST(fcntl(reader, F_DUPFD, 900));
	char *log = specimen_path("log");
	int appender = MUST(open(log, O_WRONLY | O_CREAT | O_APPEND, 0600));
	MUST(write(appender, "one ", 4));
	MUST(lseek(own, 20, SEEK_SET));

	int rounds = 0;
	while (specimen_round()) {
		MUST(lseek(reader, 10, SEEK_SET));
		specimen_ready();
		rounds++;
		char seen[64] = "";
		expect_int("offset of the reader", 10, lseek(reader, 0, SEEK_CUR));
		expect_int("offset of another open", 20, lseek(own, 0, SEEK_CUR));
		expect_ok("read", read(reader, seen, 5));
		expect_text("read at the offset", "abcde", seen);
		expect_int("offset of its duplicate", 15, lseek(twin, 0, SEEK_CUR));
		expect_int("offset of its high duplicate", 15, lseek(high, 0, SEEK_CUR));
		expect_int("offset of another open stays", 20, lseek(own, 0, SEEK_CUR));

		expect_int("access mode", O_RDONLY, fcntl(reader, F_GETFL) & O_ACCMODE);
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(reader, F_GETFD));
		expect_int("its duplicate is not close-on-exec", 0, fcntl(twin, F_GETFD));
		expect_errno("writing to a reader", EBADF, write(reader, "x", 1));

		expect_int("O_APPEND", O_APPEND, fcntl(appender, F_GETFL) & O_APPEND);
		MUST(lseek(appender, 0, SEEK_SET));
		expect_ok("append", write(appender, "more ", 5));
		expect_int("appended at the end", 4 + 5 * rounds, lseek(appender, 0, SEEK_CUR));
	}
	return specimen_end();
}
