/*
 * memfd_create(2): a file that never had a path; its content is a ghost, which
 * also keeps name and seals.
 */
#include <fcntl.h>
#include <string.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"

static bool memfd_matches(const struct fd_view *fd)
{
	return !strncmp(fd->link, "/memfd:", strlen("/memfd:")) && S_ISREG(fd->stat.st_mode) &&
	       fd->stat.st_nlink == 0;
}

static int memfd_save(const struct fd_view *fd, image_file *file, void *out,
		      struct fsnap_error *err)
{
	(void)file;
	image_file_memfd *state = out;
	image_identity identity = {0};
	if (dump_identity(fd->dump, fd->process, fd->dup, fd->link, &identity, err) < 0)
		return -1;
	state->ghost = identity.ghost;
	xdr_free((xdrproc_t)xdr_image_identity, &identity);
	return 0;
}

static int memfd_make(struct restore *restore, const image_file *file, const void *in,
		      struct fsnap_error *err)
{
	const image_file_memfd *state = in;
	unsigned kept = O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
	return restore_ghost(restore, state->ghost, (file->flags & kept) | O_CLOEXEC, err);
}

const struct file_kind kind_memfd = {
	.name = "memfd",
	.keeps = "content, name, seals, mode, sharing; huge pages, if the system has some to give",
	.shown_by = "file_memfd memory_memfd_seals memory_hugetlb*",
	.xdr = (xdrproc_t)xdr_image_file_memfd,
	.matches = memfd_matches,
	.save = memfd_save,
	.make = memfd_make,
};
