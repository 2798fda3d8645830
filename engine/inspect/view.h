/*
 * view.h - a process tree to look at, whether it runs or lies in an image.
 *
 * Both are the structs of store/image.x, filled as far as they are needed here,
 * and a way to read memory.  What shows them (threads, stacks, tables) never
 * asks which of the two it has.
 */
#ifndef INSPECT_VIEW_H
#define INSPECT_VIEW_H

#include <stdbool.h>
#include <sys/user.h>

#include "image.h"
#include "store/error.h"
#include "store/store.h"

struct tree;
struct elf;
struct tree_view;

struct process_view {
	struct tree_view *tree;
	image_process process; /* no threads in a zombie */
	image_mm mm;
	char comm[32];
	uint64_t kept_bytes; /* image: page content stored; running: resident */
	struct elf *vdso;
	bool vdso_tried;
};

/* A file that is mapped somewhere, opened when first needed. */
struct mapped_view {
	struct tree_view *tree;
	image_mapped mapped;
	int fd; /* -1: not to be had; -2: not tried yet */
	bool changed; /* there is a file, but no longer the one that was mapped */
	struct elf *elf;
	bool elf_tried;
	char way[64]; /* running: another path to it, through /proc/PID/map_files; or "" */
};

struct tree_view {
	image_tree tree;
	struct process_view *processes; /* parents before children */
	size_t n_processes;
	struct mapped_view *mapped;
	size_t n_mapped;
	image_file *files;
	size_t n_files;

	struct image *image;	/* NULL: it runs */
	image_machine machine;	/* of an image */
	struct tree *running;	/* NULL: an image */
};

/* Reads all records. The image must stay open as long as the view is used. */
int view_of_image(struct tree_view *view, struct image *image, struct fsnap_error *err);

/* Looks at a running tree. With `stop`, all of it stands still, and registers and memory can be
 * read, until view_let_go(). */
int view_of_running(struct tree_view *view, pid_t pid, bool stop, struct fsnap_error *err);
void view_let_go(struct tree_view *view);

void view_free(struct tree_view *view);

/* Reads memory; returns how many bytes from `address` on could be read. */
size_t view_read(struct process_view *process, uint64_t address, void *to, size_t n);

const image_vma *view_vma(const struct process_view *process, uint64_t address);
struct mapped_view *view_mapped(const struct tree_view *view, unsigned id);
const image_file *view_file(const struct tree_view *view, unsigned id);

/* The ELF file behind a mapping and how far it was moved: runtime address = ELF address + *bias.
 * NULL where the mapping is none, or its file is gone or changed. */
struct elf *view_elf(struct process_view *process, const image_vma *vma, uint64_t *bias);

/* The content of a mapped file, from where it was mapped or from the image. */
size_t view_read_mapped(struct tree_view *view, struct mapped_view *mapped, uint64_t offset,
			void *to, size_t n);

/* The registers a thread had or has. */
const struct user_regs_struct *view_regs(const image_thread *thread);

/* For what fills a view: one more element at the end of an array of *count, zeroed. */
void *view_add(void *array, size_t *count, size_t size, struct fsnap_error *err);
#define VIEW_ADD(array, count, err)                                           \
	({                                                                    \
		__typeof__(array) grown_ = view_add(array, &(count), sizeof(*(array)), err); \
		if (grown_)                                                   \
			(array) = grown_;                                     \
		grown_ ? &(array)[(count) - 1] : NULL;                        \
	})

/* image_memory.c */
size_t image_memory_read(struct process_view *process, uint64_t address, void *to, size_t n);
size_t image_space_read(const struct tree_view *view, unsigned space, uint64_t offset, void *to,
			size_t n);
/* The next stretch of a mapping, from an address of it on, of which the image has the content. Stretches may
 * touch. Between them lies what is in the mapped file, or else zeroes. */
bool image_memory_stored(const struct process_view *process, const image_vma *vma, uint64_t from,
			 image_span *span);

#endif
