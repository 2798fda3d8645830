/*
 * Resource limits, soft and hard, are what they were, and bite: a descriptor
 * beyond RLIMIT_NOFILE is refused, a file beyond RLIMIT_FSIZE too.
 *
 * harness: musl
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

static const struct {
	const char *name;
	int which;
	rlim_t soft, hard;
} limits[] = {
	{ "RLIMIT_NOFILE", RLIMIT_NOFILE, 200, 300 },
	{ "RLIMIT_CORE", RLIMIT_CORE, 0, 4096 },
	{ "RLIMIT_FSIZE", RLIMIT_FSIZE, 1 << 20, 2 << 20 },
	{ "RLIMIT_NPROC", RLIMIT_NPROC, 700, 800 },
	{ "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING, 50, 60 },
	{ "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE, 1000, 2000 },
	{ "RLIMIT_CPU", RLIMIT_CPU, 1000, 2000 },
	{ "RLIMIT_DATA", RLIMIT_DATA, 1ul << 32, 1ul << 33 },
};

int main(void)
{
	enum { COUNT = sizeof(limits) / sizeof(limits[0]) };
	for (int i = 0; i < COUNT; i++) {
		struct rlimit value = { limits[i].soft, limits[i].hard };
		MUST(setrlimit(limits[i].which, &value));
	}
	signal(SIGXFSZ, SIG_IGN);
	while (specimen_round()) {
		specimen_ready();
		for (int i = 0; i < COUNT; i++) {
			struct rlimit value;
			MUST(getrlimit(limits[i].which, &value));
			expect_int(limits[i].name, (long)limits[i].soft, (long)value.rlim_cur);
			expect_int("  hard", (long)limits[i].hard, (long)value.rlim_max);
		}
		expect_errno("descriptor 200", EINVAL, fcntl(0, F_DUPFD, 200));
		int fd = MUST(open(specimen_path("large"), O_RDWR | O_CREAT, 0600));
		expect_errno("byte beyond a MiB", EFBIG, pwrite(fd, "x", 1, 1 << 20));
		MUST(close(fd));
	}
	return specimen_end();
}
