/*
 * What the user declared external at the dump (--external [PID:]N=KEY): the tree's
 * end of something that goes on outside. Whatever it is, only that it was there is
 * saved, and the restore is handed another one (engine/handed.c).
 */
#include <fcntl.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"

static bool external_matches(const struct fd_view *fd)
{
	return dump_external(fd) != NULL;
}

static int external_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_external *state = out;
	state->mode = fd->stat.st_mode;
	return set_string(&state->key, dump_external(fd), err);
}

/* Called only where nothing was handed in for it. */
static int external_make(struct restore *restore, const image_file *file, const void *in,
			 struct fsnap_error *err)
{
	(void)restore;
	const image_file_external *state = in;
	fail(err, FSNAP_E_FILE_MISSING, 0, "it was declared external as %s, and nothing is handed in for it",
	     state->key);
	unsigned access = file->flags & O_ACCMODE;
	return error_hint(err, "hand one in that is open for %s: fsnap restore --external %s=7 ... 7%s",
			  access == O_RDONLY ? "reading" : access == O_WRONLY ? "writing" : "both", state->key,
			  access == O_RDONLY ? "<FILE" : access == O_WRONLY ? ">>FILE" : "<>FILE");
}

const struct file_kind kind_external = {
	.name = "external",
	.keeps = "the place of what was declared with --external; what it is comes from the restore's "
		 "--external or --fd",
	.shown_by = "elsewhere",
	.xdr = (xdrproc_t)xdr_image_file_external,
	.own_flags = true,
	.matches = external_matches,
	.save = external_save,
	.make = external_make,
};
