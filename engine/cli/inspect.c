/*
 * inspect.c - fsnap inspect: finds out; inspect_text.c and inspect_json.c print.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/cli/catalogue.h"
#include "engine/cli/inspection.h"

const char *const memory_sort_names[MEMORY_SORTS] = { "files", "heap", "stack", "shared",
						      "anonymous" };

static enum memory_sort sort_of(const image_vma *vma)
{
	if (vma->kind == VMA_SHARED || vma->kind == VMA_SYSV)
		return MEMORY_SHARED;
	if (vma->kind == VMA_FILE)
		return MEMORY_FILES;
	if (vma->name && !strcmp(vma->name, "[heap]"))
		return MEMORY_HEAP;
	return vma->name && !strcmp(vma->name, "[stack]") ? MEMORY_STACK : MEMORY_OTHER;
}

void memory_sum(const struct process_view *process, struct memory_sum sums[MEMORY_SORTS])
{
	memset(sums, 0, MEMORY_SORTS * sizeof(*sums));
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		struct memory_sum *sum = &sums[sort_of(vma)];

		sum->mappings++;
		sum->bytes += vma->end - vma->start;
	}
}

const char *inspection_exe(const struct inspection *inspection, const struct process_view *process)
{
	const struct mapped_view *exe = view_mapped(&inspection->view, process->mm.exe);

	return exe && exe->mapped.identity.path ? exe->mapped.identity.path : "";
}

static int print(const struct cli *cli, const struct inspection *inspection, struct fsnap_error *err)
{
	(void)err;
	if (cli->json)
		inspection_print_json(cli, inspection);
	else
		inspection_print(cli, inspection);
	return EXIT_SUCCESS;
}

/* Looks at threads while a running tree stands still, then lets it go before anything is printed. */
static int look(const struct cli *cli, struct inspection *inspection, inspection_fn *use,
		struct fsnap_error *err)
{
	int result = 0;

	if (cli->threads || cli->stacks)
		result = threads_look(&inspection->view, cli->stacks, &inspection->threads,
				      &inspection->n_threads, err);
	view_let_go(&inspection->view);
	if (result)
		return -1;
	threads_name(inspection->threads, inspection->n_threads);
	return use(cli, inspection, err);
}

static int finish(const struct cli *cli, struct inspection *inspection, inspection_fn *use,
		  struct fsnap_error *err)
{
	int result = look(cli, inspection, use, err);

	threads_free(inspection->threads, inspection->n_threads);
	view_free(&inspection->view);
	return result;
}

int inspect_image(const struct cli *cli, inspection_fn *use, struct fsnap_error *err)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };
	struct inspection inspection = { 0 };
	int result = -1;

	struct image *image = catalogue_open_image(&catalogue, cli, err);
	if (!image)
		return -1;
	inspection.image = image_name(image);
	if (!view_of_image(&inspection.view, image, err))
		result = finish(cli, &inspection, use, err);
	image_close(image);
	return result;
}

int cli_inspect(const struct cli *cli, struct fsnap_error *err)
{
	struct inspection inspection = { 0 };

	if (!cli->pid)
		return inspect_image(cli, print, err);
	if (cli->n_words)
		return fail(err, FSNAP_E_USAGE, 0,
			    "fsnap inspect takes an image or -t PID, not both");
	if (view_of_running(&inspection.view, cli->pid, cli->threads || cli->stacks, err))
		return -1;
	return finish(cli, &inspection, print, err);
}
