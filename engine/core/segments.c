/*
 * segments.c - which parts of a process' memory a core file has.
 *
 * What the image stores, is written. Between that, mappings of files show the file, which is not written; all
 * others show zeroes. Short stretches of zeroes become holes of the core file, long ones are left to p_memsz:
 * a program may have reserved more addresses than a file can be long.
 */
#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/core/core.h"

#define LONG_HOLE (1u << 20)

static uint32_t flags_of(const image_vma *vma)
{
	return (vma->prot & PROT_READ ? PF_R : 0u) | (vma->prot & PROT_WRITE ? PF_W : 0u) |
	       (vma->prot & PROT_EXEC ? PF_X : 0u);
}

static int add(struct core_segments *segments, const image_vma *vma, uint64_t start, uint64_t end,
	       uint64_t file_bytes, struct fsnap_error *err)
{
	if (start == end)
		return 0;
	struct core_segment *segment = VIEW_ADD(segments->all, segments->n, err);
	if (!segment)
		return -1;
	*segment = (struct core_segment){ start, end - start, file_bytes, flags_of(vma) };
	return 0;
}

/* Whether the pages that are not stored are zeroes, not those of a file. */
static bool zeroes_between(const struct process_view *process, const image_vma *vma)
{
	if (vma->kind != VMA_FILE)
		return vma->kind != VMA_SPECIAL;
	const struct mapped_view *mapped = view_mapped(process->tree, vma->object);
	return mapped && mapped->mapped.identity.ghost;
}

/* By its first page a debugger tells which build of a program or library was mapped (the build ID stands in
 * the notes there), so it is in the core, as the kernel's own cores have it (core(5), bit 4 of the filter). */
static bool is_elf_head(struct process_view *process, const image_vma *vma)
{
	char magic[SELFMAG];

	return vma->kind == VMA_FILE && vma->offset == 0 &&
	       view_read(process, vma->start, magic, SELFMAG) == SELFMAG && !memcmp(magic, ELFMAG, SELFMAG);
}

/* The next stretch that is to be written, touching ones as one. */
static bool next_stretch(struct process_view *process, const image_vma *vma, uint64_t from, bool zeroes,
			 image_span *span)
{
	image_span more;

	if (from >= vma->end || !image_memory_stored(process, vma, from, span))
		return false;
	while (span->end < vma->end && image_memory_stored(process, vma, span->end, &more) &&
	       more.start - span->end <= (zeroes ? LONG_HOLE : 0))
		span->end = more.end;
	return true;
}

static int add_mapping(struct process_view *process, const image_vma *vma, struct core_segments *segments,
		       struct fsnap_error *err)
{
	bool zeroes = zeroes_between(process, vma);
	uint64_t at = vma->start;
	image_span span;

	if (vma->kind == VMA_SPECIAL) /* the vDSO's code; the pages of data beside it are the kernel's */
		return add(segments, vma, vma->start, vma->end,
			   strcmp(vma->name, "[vdso]") ? 0 : vma->end - vma->start, err);
	/* What was not to be in a core by the program's own word (madvise(2), MADV_DONTDUMP) is not. */
	if (vma->advice & ADVICE_DONTDUMP)
		return add(segments, vma, vma->start, vma->end, 0, err);
	bool stored = next_stretch(process, vma, at, zeroes, &span);
	if ((!stored || span.start > at) && is_elf_head(process, vma)) {
		if (add(segments, vma, at, at + STORE_PAGE, STORE_PAGE, err) < 0)
			return -1;
		at += STORE_PAGE;
	}
	for (; stored; stored = next_stretch(process, vma, at, zeroes, &span)) {
		if (add(segments, vma, at, span.start, 0, err) < 0)
			return -1;
		image_span next;
		bool more = next_stretch(process, vma, span.end, zeroes, &next);
		/* Zeroes behind it need no segment of their own. */
		uint64_t end = !zeroes ? span.end : more ? next.start : vma->end;
		if (add(segments, vma, span.start, end, span.end - span.start, err) < 0)
			return -1;
		at = end;
	}
	return add(segments, vma, at, vma->end, 0, err);
}

int core_segments(struct process_view *process, struct core_segments *segments, struct fsnap_error *err)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++)
		if (add_mapping(process, &process->mm.vmas.vmas_val[i], segments, err) < 0)
			return -1;
	return 0;
}
