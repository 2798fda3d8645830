/*
 * signalfd(2): a set of signals. What is pending belongs to the processes.
 */
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/table.h"

static bool signalfd_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[signalfd]");
}

static int signalfd_save(const struct fd_view *fd, image_file *file, void *out,
			 struct fsnap_error *err)
{
	(void)file;
	image_file_signalfd *state = out;
	uint64_t mask;
	if (!fdinfo_number(fd->info, "sigmask", 16, &mask))
		return refuse_fd(fd, err, "The kernel does not say which signals: a newer one does.",
				 "a signalfd");
	state->mask = mask;
	return 0;
}

static int signalfd_make(struct restore *restore, const image_file *file, const void *in,
			 struct fsnap_error *err)
{
	(void)restore;
	const image_file_signalfd *state = in;
	uint64_t mask = state->mask; /* the kernel's 8 bytes, not libc's sigset_t */
	int fd = (int)syscall(SYS_signalfd4, -1, &mask, sizeof(mask), SFD_CLOEXEC);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: signalfd", file->id);
	return fd;
}

const struct file_kind kind_signalfd = {
	.name = "signalfd",
	.keeps = "signals; what waits is pending in its process",
	.shown_by = "event_signalfd",
	.xdr = (xdrproc_t)xdr_image_file_signalfd,
	.matches = signalfd_matches,
	.save = signalfd_save,
	.make = signalfd_make,
};
