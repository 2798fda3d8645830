/*
 * The character devices programs keep open: /dev/null, zero, full, random and
 * urandom, and a mapping of /dev/zero.
 *
 * harness: musl
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/mman.h>

int main(void)
{
	int null = MUST(open("/dev/null", O_RDWR)), zero = MUST(open("/dev/zero", O_RDONLY));
	int full = MUST(open("/dev/full", O_WRONLY | O_CLOEXEC));
	int random = MUST(open("/dev/random", O_RDONLY | O_NONBLOCK));
	int urandom = MUST(open("/dev/urandom", O_RDONLY));
	char *mapped = MUST(mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0));
	pattern_fill(mapped, 4096, 1);

	while (specimen_round()) {
		specimen_ready();
		char buf[64];
		expect_int("reading /dev/null", 0, read(null, buf, sizeof(buf)));
		expect_int("writing /dev/null", 5, write(null, "12345", 5));
		memset(buf, 1, sizeof(buf));
		expect_int("reading /dev/zero", 64, read(zero, buf, sizeof(buf)));
		expect_zero("/dev/zero", buf, sizeof(buf));
		expect_errno("writing /dev/full", ENOSPC, write(full, "x", 1));
		char one[32] = "", two[32] = "";
		expect_int("reading /dev/urandom", 32, read(urandom, one, 32));
		expect_int("reading /dev/random", 32, read(random, two, 32));
		expect_int("they differ", 1, memcmp(one, two, 32) != 0);
		expect_pattern("written page of the mapping of /dev/zero", mapped, 4096, 1);
		expect_zero("the rest of it", mapped + 4096, 12288);
	}
	return specimen_end();
}
