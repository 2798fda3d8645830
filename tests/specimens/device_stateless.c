/*
 * Devices that keep nothing for who has them open: they are there, under the flags they were opened
 * with. A block device goes on at its position.
 *
 * harness: root
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define LOOP_CTL_GET_FREE 0x4c82

static const struct {
	const char *path;
	int flags;
	unsigned major, minor;
} devices[] = {
	{ "/dev/kmsg", O_WRONLY, 1, 11 },
	{ "/dev/loop-control", O_RDWR, 10, 237 },
	{ "/dev/btrfs-control", O_RDONLY, 10, 234 },
	{ "/dev/autofs", O_RDONLY, 10, 235 },
	{ "/dev/kvm", O_RDWR, 10, 232 },
	{ "/dev/hwrng", O_RDONLY, 10, 183 },
	{ "/dev/cpu/0/cpuid", O_RDONLY, 203, 0 },
	{ "/dev/loop0", O_RDONLY | O_NONBLOCK, 7, 0 },
};
enum { DEVICES = sizeof(devices) / sizeof(devices[0]) };

int main(void)
{
	int held[DEVICES], there = 0;
	for (size_t i = 0; i < DEVICES; i++) {
		held[i] = open(devices[i].path, devices[i].flags);
		there += held[i] >= 0;
	}
	if (!there)
		specimen_skip("none of the devices is here");
	while (specimen_round()) {
		for (size_t i = 0; i < DEVICES; i++)
			if (held[i] >= 0 && devices[i].major == 7)
				lseek(held[i], 0, SEEK_END);
		specimen_ready();
		for (size_t i = 0; i < DEVICES; i++) {
			struct stat seen = { 0 };
			if (held[i] < 0)
				continue;
			expect_ok(devices[i].path, fstat(held[i], &seen));
			expect_int("major", devices[i].major, major(seen.st_rdev));
			expect_int("minor", devices[i].minor, minor(seen.st_rdev));
			expect_int("access mode", devices[i].flags & O_ACCMODE,
				   fcntl(held[i], F_GETFL) & O_ACCMODE);
		}
		if (held[1] >= 0)
			expect_ok("loop-control answers", ioctl(held[1], LOOP_CTL_GET_FREE));
	}
	return specimen_end();
}
