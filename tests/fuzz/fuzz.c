#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/inspect/thread_view.h"
#include "engine/inspect/view.h"
#include "engine/model.h"
#include "store/scope.h"

static char path[64];
static int file = -1;

static void forget(void)
{
	unlink(path);
}

static void open_file(void)
{
	snprintf(path, sizeof(path), "/dev/shm/fsnap-fuzz.%d", getpid());
	file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file < 0)
		abort();
	atexit(forget);
}

const char *fuzz_file_pieces(const struct fuzz_piece *pieces, size_t n, uint64_t file_length)
{
	if (file < 0)
		open_file();
	if (ftruncate(file, 0) < 0 || ftruncate(file, (off_t)file_length) < 0)
		abort();
	for (size_t i = 0; i < n; i++)
		if (pwrite(file, pieces[i].bytes, pieces[i].length, (off_t)pieces[i].offset) !=
		    (ssize_t)pieces[i].length)
			abort();
	return path;
}

/* A refusal says what is wrong. */
static int refused(int result, const struct fsnap_error *err)
{
	if (result < 0 && (err->code == 0 || !err->message[0]))
		abort();
	return result < 0;
}

static void look_at_pages(const struct image *image)
{
	struct fsnap_error err = { 0 };
	uint64_t blocks = image_blocks(image);
	refused(image_verify_blocks(image, 0, blocks < 4 ? blocks : 4, &err), &err);
	for (uint32_t space = 0; space < 64; space++) {
		size_t n;
		const struct page_run *runs = image_runs(image, space, &n);
		for (size_t i = 0; i < n; i++)
			if (runs[i].npages == 0)
				abort();
	}
}

static void look_at_model(const struct image *image)
{
	struct fsnap_error err = { 0 };
	struct model model = { 0 };
	refused(model_load(&model, image, &err), &err);
	model_free(&model);
}

static void look_at_view(struct image *image)
{
	struct fsnap_error err = { 0 };
	struct tree_view view = { 0 };
	refused(view_of_image(&view, image, &err), &err);
	view_free(&view);
}

static void look_at_hints(struct image *image)
{
	struct fsnap_error err = { 0 };
	if (refused(image_hints(image, &err), &err))
		return;
	for (size_t i = 0; i < image_hint_count(image, IMAGE_HEAT); i++) {
		image_heat heat = { 0 };
		struct fsnap_error own = { 0 };
		refused(image_hint_get(image, IMAGE_HEAT, i, (xdrproc_t)xdr_image_heat, &heat, &own), &own);
		xdr_free((xdrproc_t)xdr_image_heat, (char *)&heat);
	}
}

void fuzz_look_into(const char *name)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(NULL, name, &err);
	if (refused(image ? 0 : -1, &err))
		return;
	look_at_pages(image);
	look_at_model(image);
	look_at_view(image);
	look_at_hints(image);
	image_close(image);
}
