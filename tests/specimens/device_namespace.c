/*
 * Namespaces of its own that a program holds open lead to the namespaces it is in then.
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/stat.h>

static const char *const names[] = { "mnt", "net", "pid", "pid_for_children", "ipc", "uts", "user",
				     "cgroup", "time" };
enum { NAMES = sizeof(names) / sizeof(names[0]) };

int main(void)
{
	int held[NAMES];
	char path[64];
	for (size_t i = 0; i < NAMES; i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		held[i] = MUST(open(path, O_RDONLY | O_CLOEXEC));
	}
	while (specimen_round()) {
		specimen_ready();
		for (size_t i = 0; i < NAMES; i++) {
			struct stat own, seen = { 0 };
			snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
			MUST(stat(path, &own));
			expect_ok(names[i], fstat(held[i], &seen));
			expect_hex("is its own", own.st_ino, seen.st_ino);
			expect_hex("in", own.st_dev, seen.st_dev);
			expect_int("close-on-exec", FD_CLOEXEC, fcntl(held[i], F_GETFD));
		}
	}
	return specimen_end();
}
