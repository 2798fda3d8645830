/*
 * saved_files.c - open file descriptions that were saved (dump_files.c), as a whole: checked and linked with one another, put
 * into the image, freed.
 */
#include <search.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/kinds/carried.h"
#include "store/scope.h"

static int index_files(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->n_files; i++) {
		const struct file_kind *kind = file_kind_find(dump->files[i]->file.kind);
		if (kind->key && file_keys_add(&dump->file_keys, kind, kind->key(&dump->files[i]->state), i,
					       err) < 0)
			return -1;
	}
	file_keys_sort(&dump->file_keys);
	return 0;
}

int files_finish(struct dump *dump, struct fsnap_error *err)
{
	if (externals_check(dump, err) < 0 || index_files(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->n_files; i++)
		if (carried_check(dump, &dump->files[i]->file, &dump->files[i]->state, err) < 0)
			return -1;
	for (size_t i = 0; i < dump->n_files; i++) {
		struct saved_file *saved = dump->files[i];
		const struct file_kind *kind = file_kind_find(saved->file.kind);
		if (kind->save_links && kind->save_links(dump, &saved->file, &saved->state, err) < 0)
			return -1;
	}
	return 0;
}

static int encode_state(struct saved_file *saved, struct fsnap_error *err)
{
	xdrproc_t proc = file_kind_find(saved->file.kind)->xdr;
	unsigned long size = xdr_sizeof(proc, &saved->state);
	XDR xdr;
	saved->file.state.state_val = malloc(size ? size : 1);
	if (!saved->file.state.state_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", saved->file.label);
	xdrmem_create(&xdr, saved->file.state.state_val, (u_int)size, XDR_ENCODE);
	if (!proc(&xdr, &saved->state))
		return fail(err, FSNAP_E_UNSUPPORTED, 0, "%s: more state than an image can hold",
			    saved->file.label);
	saved->file.state.state_len = (u_int)size;
	return 0;
}

int files_silence(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; file_kinds[i]; i++)
		if (dump->scratch[i] && file_kinds[i]->silence && file_kinds[i]->silence(dump, err) < 0)
			return -1;
	return 0;
}

int files_put(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->n_files; i++)
		if (encode_state(dump->files[i], err) < 0 ||
		    image_writer_put(dump->writer, IMAGE_FILE, true, "file", (xdrproc_t)xdr_image_file,
				     &dump->files[i]->file, err) < 0)
			return -1;
	return 0;
}

/* The tree points to what dump->files owns. */
static void leave(void *saved)
{
	(void)saved;
}

void files_free(struct dump *dump)
{
	for (size_t i = 0; i < dump->n_files; i++) {
		struct saved_file *saved = dump->files[i];
		const struct file_kind *kind = saved->file.kind ? file_kind_find(saved->file.kind) : NULL;
		if (kind && kind->xdr)
			xdr_free(kind->xdr, (char *)&saved->state);
		xdr_free((xdrproc_t)xdr_image_file, (char *)&saved->file);
		if (saved->held >= 0)
			close(saved->held);
		free(saved);
	}
	tdestroy(dump->by_identity, leave);
	free(dump->files);
	file_keys_free(&dump->file_keys);
	readers_leave_peek(dump, dump->peek);
	for (size_t i = 0; i < sizeof(dump->scratch) / sizeof(dump->scratch[0]); i++) {
		if (dump->scratch[i] && file_kinds[i]->dump_end)
			file_kinds[i]->dump_end(dump->scratch[i]);
		free(dump->scratch[i]);
	}
}
