/*
 * Character devices without state of their own: the null, zero, full and random
 * devices.  Every other device is refused by unsupported.c.
 */
#include <fcntl.h>
#include <sys/sysmacros.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

static bool device_matches(const struct fd_view *fd)
{
	if (!S_ISCHR(fd->stat.st_mode) || (fd->flags & O_PATH) || major(fd->stat.st_rdev) != 1)
		return false;
	switch (minor(fd->stat.st_rdev)) { /* Documentation/admin-guide/devices.txt */
	case 3: /* null */
	case 5: /* zero */
	case 7: /* full */
	case 8: /* random */
	case 9: /* urandom */
		return true;
	}
	return false;
}

static int device_save(const struct fd_view *fd, image_file *file, void *out,
		       struct fsnap_error *err)
{
	(void)file;
	image_file_device *state = out;
	state->rdev = fd->stat.st_rdev;
	return dump_identity(fd->dump, fd->process, fd->dup, fd->link, &state->identity, err);
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
	if (fstat(fd, &now) < 0 || !S_ISCHR(now.st_mode) || now.st_rdev != state->rdev) {
		fail(err, FSNAP_E_FILE_CHANGED, 0, "%s is not the device %u:%u it was",
		     state->identity.path, major(state->rdev), minor(state->rdev));
		return error_hint(err, "Make it again with: mknod %s c %u %u", state->identity.path,
				  major(state->rdev), minor(state->rdev));
	}
	return steal_fd(&fd);
}

const struct file_kind kind_device = {
	.name = "device",
	.keeps = "/dev/null, zero, full, random, urandom",
	.shown_by = "file_devices",
	.xdr = (xdrproc_t)xdr_image_file_device,
	.matches = device_matches,
	.save = device_save,
	.make = device_make,
};
