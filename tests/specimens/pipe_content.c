/*
 * Pipes with bytes in them: what was written in several pieces is read once,
 * in order, and no byte more; a full pipe stays full; the size set by
 * F_SETPIPE_SZ, O_NONBLOCK of each end, and the end of file are kept.
 */
#include "specimen.h"

#include <fcntl.h>
#include <poll.h>

enum { CHUNKS = 7 };

static size_t chunk_size(int i)
{
	return (size_t)i * 1500 + 1;
}

static void make_pipe(int ends[2], int flags)
{
	MUST(pipe2(ends, flags));
}

static void expect_readable(const char *what, int fd, bool expected)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	expect_int(what, expected, poll(&p, 1, 0));
}

int main(void)
{
	int chunks[2], empty[2], full[2], ended[2], sized[2];
	static char buf[1 << 20], pattern[1 << 20];
	make_pipe(chunks, 0);
	make_pipe(empty, O_NONBLOCK);
	make_pipe(full, O_NONBLOCK | O_CLOEXEC);
	make_pipe(sized, 0);
	MUST(fcntl(chunks[0], F_SETFL, O_NONBLOCK));
	int size = MUST(fcntl(sized[1], F_SETPIPE_SZ, 256 * 1024));

	while (specimen_round()) {
		for (int i = 0; i < CHUNKS; i++) {
			pattern_fill(buf, chunk_size(i), (uint64_t)i);
			MUST(write(chunks[1], buf, chunk_size(i)));
		}
		pattern_fill(pattern, sizeof(pattern), 77);
		long capacity = 0;
		for (ssize_t n; (n = write(full[1], pattern + capacity, 4096)) > 0;)
			capacity += n;
		MUST(write(sized[1], pattern, 200 * 1024));
		make_pipe(ended, 0);
		MUST(write(ended[1], "last words", 10));
		MUST(close(ended[1]));

		specimen_ready();

		for (int i = 0; i < CHUNKS; i++) {
			expect_int("bytes of a chunk", (long)chunk_size(i),
				   read(chunks[0], buf, chunk_size(i)));
			expect_pattern("chunk", buf, chunk_size(i), (uint64_t)i);
		}
		expect_errno("nothing is left", EAGAIN, read(chunks[0], buf, 1));
		expect_int("the other end is not O_NONBLOCK", 0,
			   fcntl(chunks[1], F_GETFL) & O_NONBLOCK);
		expect_errno("empty stays empty", EAGAIN, read(empty[0], buf, 1));

		expect_errno("full stays full", EAGAIN, write(full[1], "x", 1));
		long drained = 0;
		for (ssize_t n; (n = read(full[0], buf + drained, 65536)) > 0;)
			drained += n;
		expect_int("bytes in the full pipe", capacity, drained);
		expect_bytes("content of the full pipe", pattern, buf, (size_t)capacity);

		expect_int("F_GETPIPE_SZ", size, fcntl(sized[0], F_GETPIPE_SZ));
		ssize_t got = 0;
		for (ssize_t n; got < 200 * 1024 && (n = read(sized[0], buf + got, 65536)) > 0;)
			got += n;
		expect_int("bytes in the enlarged pipe", 200 * 1024, got);
		expect_bytes("content of the enlarged pipe", pattern, buf, 200 * 1024);
		expect_readable("and no more", sized[0], false);

		expect_int("bytes before the end", 10, read(ended[0], buf, 100));
		expect_bytes("last bytes", "last words", buf, 10);
		expect_int("end of file", 0, read(ended[0], buf, 100));
		MUST(close(ended[0]));
	}
	return specimen_end();
}
