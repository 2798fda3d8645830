/*
 * core.h - a process of an image as an ELF core file, for debuggers.
 *
 *	notes.c      who it was: threads with their registers, the program, mapped files (core(5), <linux/elf.h>)
 *	segments.c   its memory: what the image has of each mapping
 *	core.c       the file
 */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <stdint.h>
#include <stdio.h>

#include "engine/inspect/view.h"

/* One PT_LOAD. Behind file_bytes there is nothing but zeroes, or what the mapped file has, which
 * debuggers look up there themselves. */
struct core_segment {
	uint64_t start;
	uint64_t size;
	uint64_t file_bytes;
	uint32_t flags; /* PF_* */
};

struct core_segments {
	struct core_segment *all; /* by address */
	size_t n;
};

/* The caller frees segments->all, on failure too. */
int core_segments(struct process_view *process, struct core_segments *segments, struct fsnap_error *err);

/* Writes the content of PT_NOTE. Errors stay in the stream; false: there is no memory. */
bool core_notes(struct process_view *process, FILE *out);

#endif
