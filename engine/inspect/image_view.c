/*
 * image_view.c - a view of a tree that lies in an image.
 */
#include <string.h>

#include "engine/inspect/view.h"

static int read_mapped(struct tree_view *view, struct fsnap_error *err)
{
	for (size_t i = 0; i < image_count(view->image, IMAGE_MAPPED); i++) {
		struct mapped_view *mapped = VIEW_ADD(view->mapped, view->n_mapped, err);

		if (!mapped)
			return -1;
		mapped->tree = view;
		mapped->fd = -2;
		if (image_get(view->image, IMAGE_MAPPED, i, (xdrproc_t)xdr_image_mapped, &mapped->mapped,
			err))
			return -1;
	}
	return 0;
}

static int read_files(struct tree_view *view, struct fsnap_error *err)
{
	for (size_t i = 0; i < image_count(view->image, IMAGE_FILE); i++) {
		image_file *file = VIEW_ADD(view->files, view->n_files, err);

		if (!file || image_get(view->image, IMAGE_FILE, i, (xdrproc_t)xdr_image_file, file, err))
			return -1;
	}
	return 0;
}

/* A process names its address space; several may (vfork). Each view has its own copy of it. */
static int read_mm(struct process_view *process, size_t likely, struct fsnap_error *err)
{
	struct image *image = process->tree->image;
	size_t count = image_count(image, IMAGE_MM);

	if (process->process.zombie)
		return 0;
	/* They stand in the order of their processes, as a rule. */
	for (size_t i = 0; i < count; i++) {
		if (image_get(image, IMAGE_MM, (likely + i) % count, (xdrproc_t)xdr_image_mm,
			      &process->mm, err))
			return -1;
		if (process->mm.id == process->process.mm)
			return 0;
		xdr_free((xdrproc_t)xdr_image_mm, (char *)&process->mm);
		memset(&process->mm, 0, sizeof(process->mm));
	}
	return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "process %d has no address space",
		    process->process.pid);
}

static uint64_t stored_bytes(const struct process_view *process)
{
	size_t count = 0;
	const struct page_run *runs = process->mm.id ? image_runs(process->tree->image,
								  process->mm.id, &count) :
						       NULL;
	uint64_t pages = 0;

	for (size_t i = 0; i < count; i++)
		pages += runs[i].npages;
	return pages * STORE_PAGE;
}

static int read_processes(struct tree_view *view, struct fsnap_error *err)
{
	for (size_t i = 0; i < image_count(view->image, IMAGE_PROCESS); i++) {
		struct process_view *process = VIEW_ADD(view->processes, view->n_processes, err);

		if (!process)
			return -1;
		process->tree = view;
		if (image_get(view->image, IMAGE_PROCESS, i, (xdrproc_t)xdr_image_process,
			&process->process, err) ||
		    read_mm(process, i, err))
			return -1;
		process->kept_bytes = stored_bytes(process);
		if (process->process.threads.threads_len)
			snprintf(process->comm, sizeof(process->comm), "%s",
				 process->process.threads.threads_val[0].comm);
	}
	return 0;
}

int view_of_image(struct tree_view *view, struct image *image, struct fsnap_error *err)
{
	*view = (struct tree_view){ .image = image };
	if (image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &view->tree, err) ||
	    image_get(image, IMAGE_MACHINE, 0, (xdrproc_t)xdr_image_machine, &view->machine, err) ||
	    read_mapped(view, err) || read_files(view, err) ||
	    read_processes(view, err)) {
		view_free(view);
		return -1;
	}
	return 0;
}
