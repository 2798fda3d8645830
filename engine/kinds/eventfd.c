/*
 * eventfd(2): a counter; everything about it is in fdinfo.
 */
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "store/scope.h"

static bool eventfd_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[eventfd]");
}

static int eventfd_save(const struct fd_view *fd, image_file *file, void *out,
			struct fsnap_error *err)
{
	(void)file;
	image_file_eventfd *state = out;
	uint64_t count, semaphore = 0;
	if (!fdinfo_number(fd->info, "eventfd-count", 16, &count))
		return refuse_fd(fd, err, "The kernel does not say what it holds: a newer one does.",
				 "an eventfd");
	/* Linux 6.5 and later; before, nobody outside can know, and most are none. */
	fdinfo_number(fd->info, "eventfd-semaphore", 10, &semaphore);
	uint64_t id = 0;
	fdinfo_number(fd->info, "eventfd-id", 10, &id);
	state->id = (unsigned)id;
	state->count = count;
	state->semaphore = semaphore != 0;
	return 0;
}

static int eventfd_make(struct restore *restore, const image_file *file, const void *in,
			struct fsnap_error *err)
{
	(void)restore;
	const image_file_eventfd *state = in;
	cleanup_fd int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK |
					       (state->semaphore ? EFD_SEMAPHORE : 0));
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: eventfd", file->id);
	uint64_t count = state->count;
	if (count && write(fd, &count, sizeof(count)) != sizeof(count))
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: eventfd: set to %llu",
			    file->id, (unsigned long long)count);
	return steal_fd(&fd);
}

const struct file_kind kind_eventfd = {
	.name = "eventfd",
	.keeps = "counter, semaphore mode",
	.shown_by = "event_fd",
	.xdr = (xdrproc_t)xdr_image_file_eventfd,
	.matches = eventfd_matches,
	.save = eventfd_save,
	.make = eventfd_make,
};
