/*
 * Devices that keep nothing for whoever has them open: opened again by path.  Of
 * a block device, as of a file, position and flags are kept, not the content.
 * tun.c knows one that does keep something; every other is refused by unsupported.c.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* Documentation/admin-guide/devices.txt. A minor of -1: all of them. */
static const struct {
	unsigned major;
	int minor;
} stateless[] = {
	{1, 1},	  /* mem */
	{1, 3},	  /* null */
	{1, 4},	  /* port */
	{1, 5},	  /* zero */
	{1, 7},	  /* full */
	{1, 8},	  /* random */
	{1, 9},	  /* urandom */
	{10, 183}, /* hwrng */
	{10, 232}, /* kvm: virtual machines have descriptors of their own */
	{10, 234}, /* btrfs-control */
	{10, 235}, /* autofs */
	{10, 236}, /* mapper/control */
	{10, 237}, /* loop-control */
	{202, -1}, /* cpu/N/msr */
	{203, -1}, /* cpu/N/cpuid */
};

/* Those whose numbers the kernel makes up as it starts. */
static const char *const by_name[] = {"/dev/rtc", "/dev/userfaultfd"};

static bool is_log_writer(const struct fd_view *fd)
{
	/* Readers of the kernel log have a place in it, which nobody is told. */
	return fd->stat.st_rdev == makedev(1, 11) && (fd->flags & O_ACCMODE) == O_WRONLY;
}

static bool device_matches(const struct fd_view *fd)
{
	if ((fd->flags & O_PATH) || (!S_ISCHR(fd->stat.st_mode) && !S_ISBLK(fd->stat.st_mode)))
		return false;
	if (S_ISBLK(fd->stat.st_mode) || is_log_writer(fd))
		return true;
	for (size_t i = 0; i < sizeof(stateless) / sizeof(*stateless); i++)
		if (stateless[i].major == major(fd->stat.st_rdev) &&
		    (stateless[i].minor < 0 || (unsigned)stateless[i].minor == minor(fd->stat.st_rdev)))
			return true;
	for (size_t i = 0; i < sizeof(by_name) / sizeof(*by_name); i++)
		if (!strncmp(fd->link, by_name[i], strlen(by_name[i])))
			return true;
	return false;
}

static int device_save(const struct fd_view *fd, image_file *file, void *out,
		       struct fsnap_error *err)
{
	(void)file;
	image_file_device *state = out;
	state->rdev = fd->stat.st_rdev;
	if (!strncmp(fd->link, "/dev/rtc", 8))
		dump_note(fd->dump, "%s is opened again; which interrupts the program had asked of it, the "
				    "kernel does not tell", fd->link);
	return dump_identity(fd->dump, fd->process, fd->dup, fd->link, &state->identity, err);
}

static int device_remap(struct restore *restore, void *state, struct fsnap_error *err)
{
	return restore_remap(restore, &((image_file_device *)state)->identity.path, err);
}

static int device_make(struct restore *restore, const image_file *file, const void *in,
		       struct fsnap_error *err)
{
	const image_file_device *state = in;
	unsigned flags = file->flags & ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC | O_ASYNC);
	cleanup_fd int fd = restore_open(restore, &state->identity, flags | O_CLOEXEC, err);
	struct stat now;
	if (fd < 0)
		return -1;
	if (fstat(fd, &now) < 0 || (now.st_mode & S_IFMT) != (state->identity.mode & S_IFMT) ||
	    now.st_rdev != state->rdev) {
		fail(err, FSNAP_E_FILE_CHANGED, 0, "%s is not the device %u:%u it was",
		     state->identity.path, major(state->rdev), minor(state->rdev));
		return error_hint(err, "Make it again with: mknod %s %c %u %u", state->identity.path,
				  S_ISBLK(state->identity.mode) ? 'b' : 'c', major(state->rdev),
				  minor(state->rdev));
	}
	return steal_fd(&fd);
}

const struct file_kind kind_device = {
	.name = "device",
	.keeps = "/dev/null, zero, full, random, urandom, mem, port, hwrng, kmsg being written, kvm, rtc, "
		 "loop-control, mapper/control, btrfs-control, autofs, userfaultfd, msr, cpuid; position "
		 "and flags of block devices",
	.shown_by = "file_devices device_*",
	.xdr = (xdrproc_t)xdr_image_file_device,
	.matches = device_matches,
	.save = device_save,
	.remap = device_remap,
	.make = device_make,
};
