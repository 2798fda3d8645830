/*
 * inspection.h - what fsnap inspect has found out, ready to be printed.
 */
#ifndef CLI_INSPECTION_H
#define CLI_INSPECTION_H

#include "engine/cli/cli.h"
#include "engine/inspect/thread_view.h"

struct inspection {
	const char *image; /* NULL: a running tree */
	struct tree_view view;
	struct thread_view *threads; /* none, unless they were asked for */
	size_t n_threads;
};

/* Mappings of one sort, added up. */
enum memory_sort { MEMORY_FILES, MEMORY_HEAP, MEMORY_STACK, MEMORY_SHARED, MEMORY_OTHER, MEMORY_SORTS };
struct memory_sum {
	size_t mappings;
	uint64_t bytes;
};
extern const char *const memory_sort_names[MEMORY_SORTS];
void memory_sum(const struct process_view *process, struct memory_sum sums[MEMORY_SORTS]);

/* Path of the program; "" where it is not known. */
const char *inspection_exe(const struct inspection *inspection, const struct process_view *process);

/* Looks into the image that a command line names, as far as its options ask; then `use` has it. */
typedef int inspection_fn(const struct cli *cli, const struct inspection *inspection, struct fsnap_error *err);
int inspect_image(const struct cli *cli, inspection_fn *use, struct fsnap_error *err);

void inspection_print(const struct cli *cli, const struct inspection *inspection);
void inspection_print_json(const struct cli *cli, const struct inspection *inspection);
void inspection_write_json(struct json *json, const struct cli *cli, const struct inspection *inspection);

#endif
