/*
 * ring.c - mappings of io_uring back to their addresses.
 *
 * The kernel lets nobody say where (io_uring_get_unmapped_area(), io_uring/memmap.c, Linux 6.5; mremap(2)
 * asks the same function).  It takes the highest gap below mmap_base that is large enough, or if
 * there is none the lowest anywhere; so every gap is filled but the one that is wanted.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "restorer/memory.h"
#include "store/scope.h"

#define ADDRESS_END 0x7ffffffff000ull
#define ADDRESS_BEGIN 0x10000ull /* vm.mmap_min_addr; the kernel looks that low last of all */
#define CONTROL_BITS 32		 /* control memory has so much room, and fills some of it */

struct filling {
	struct plans *plans;
	uint32_t task;
	struct memory_range *gaps;
	size_t n;
	uint32_t rest[CONTROL_BITS]; /* slots: what filled the room behind control memory */
	unsigned n_rest;
};

static void fill(const struct filling *filling, uint64_t at, uint64_t size)
{
	plan_call(filling->plans, filling->task, SYS_mmap, IMM(at), IMM(size), IMM(PROT_NONE),
		  IMM(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED_NOREPLACE : 0)),
		  IMM(-1), IMM(0));
}

static void add_gap(struct filling *filling, uint64_t from, uint64_t to)
{
	if (to > from)
		filling->gaps[filling->n++] = (struct memory_range){ from, to };
}

/* Between the mappings there are, rings included, and around the room for control memory. */
static void find_gaps(struct filling *filling, const struct memory_source *source,
		      const image_mm *mm)
{
	uint64_t from = ADDRESS_BEGIN;
	bool past = false;
	for (u_int i = 0; i <= mm->vmas.vmas_len; i++) {
		const image_vma *vma = i < mm->vmas.vmas_len ? &mm->vmas.vmas_val[i] : NULL;
		uint64_t to = vma ? vma->start : ADDRESS_END;
		if (!past && source->control.start < to) {
			add_gap(filling, from, source->control.start);
			from = source->control.end;
			past = true;
		}
		add_gap(filling, from, to);
		from = vma ? vma->end : to;
	}
}

static bool is_ring(const image_vma *vma)
{
	return vma->kind == VMA_RING;
}

/* How much of its room control memory needs is not known before the plan is complete: the rest is
 * filled by halves, each where the kernel finds room for it. */
static void fill_all(struct filling *filling)
{
	for (size_t i = 0; i < filling->n; i++)
		fill(filling, filling->gaps[i].start,
		     filling->gaps[i].end - filling->gaps[i].start);
	for (unsigned bit = CONTROL_BITS; bit-- > 12;) {
		fill(filling, 0, 1ull << bit);
		plan_accept_any(filling->plans);
		filling->rest[filling->n_rest++] = plan_result(filling->plans);
	}
}

static void empty_all(const struct filling *filling)
{
	for (size_t i = 0; i < filling->n; i++)
		plan_call(filling->plans, filling->task, SYS_munmap, IMM(filling->gaps[i].start),
			  IMM(filling->gaps[i].end - filling->gaps[i].start));
	for (unsigned i = 0; i < filling->n_rest; i++) {
		/* What was not to be had is no address. */
		plan_call(filling->plans, filling->task, SYS_munmap, SLOT(filling->rest[i]),
			  IMM(1ull << (CONTROL_BITS - 1 - i)));
		plan_accept_any(filling->plans);
	}
}

static void map_ring(struct plans *plans, uint32_t task, const image_vma *vma, int fd)
{
	uint64_t size = vma->end - vma->start;
	plan_call(plans, task, SYS_munmap, IMM(vma->start), IMM(size));
	plan_call(plans, task, SYS_mmap, IMM(0), IMM(size), IMM(vma->prot), IMM(MAP_SHARED),
		  IMM(fd), IMM(vma->offset));
	plan_accept_equal(plans, (int64_t)vma->start);
}

/* Where each ring will be, something is by now that keeps others away. */
static int map_rings(struct filling *filling, const struct memory_source *source, const image_mm *mm, const int *fds,
		     struct fsnap_error *err)
{
	filling->gaps = calloc(mm->vmas.vmas_len + 3, sizeof(*filling->gaps));
	if (!filling->gaps)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of a restore");
	plan_note(filling->plans, "rings of io_uring where they were");
	find_gaps(filling, source, mm);
	fill_all(filling);
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (is_ring(vma) && fds[vma->object] >= 0)
			map_ring(filling->plans, filling->task, vma, fds[vma->object]);
	}
	empty_all(filling);
	free(filling->gaps);
	return 0;
}

int memory_rings(struct plans *plans, uint32_t task, const struct memory_source *source,
		 const image_mm *mm, struct fsnap_error *err)
{
	struct filling filling = { .plans = plans, .task = task };
	bool any = false;
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (is_ring(vma))
			fill(&filling, vma->start, vma->end - vma->start);
		any |= is_ring(vma) && source->ring_fd[vma->object] >= 0;
	}
	return any ? map_rings(&filling, source, mm, source->ring_fd, err) : 0;
}

int memory_late_rings(struct plans *plans, uint32_t task, const struct memory_source *source,
		      const image_mm *mm, const int *fds, struct fsnap_error *err)
{
	struct filling filling = { .plans = plans, .task = task };
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (is_ring(&mm->vmas.vmas_val[i]) && fds[mm->vmas.vmas_val[i].object] >= 0)
			return map_rings(&filling, source, mm, fds, err);
	return 0;
}
