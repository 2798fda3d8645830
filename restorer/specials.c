/*
 * specials.c - the vDSO group: [vdso] and the pages of kernel data beside it.
 *
 * It cannot be made, only moved: the one the kernel gave the restoring process waits beside control memory
 * while address spaces are empty and forked, and goes to its place in each of them.
 */
#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "restorer/memory.h"
#include "store/scope.h"

#define LOWEST 0x100000ull /* nothing is put at or near address 0: vm.mmap_min_addr */
#define HIGHEST 0x7fffffffe000ull

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static uint64_t special_size(const struct memory_source *source, size_t special)
{
	return source->specials[special].end - source->specials[special].start;
}

/* They keep their order and distances, always: the code reads its data relative to itself. */
static uint64_t in_group(const struct memory_source *source, size_t special, uint64_t group)
{
	return group + (source->specials[special].start - source->specials[0].start);
}

static uint64_t group_size(const struct memory_source *source)
{
	return source->n_specials ? source->specials[source->n_specials - 1].end - source->specials[0].start : 0;
}

static void move(struct plans *plans, uint32_t task, uint64_t from, uint64_t to, uint64_t size)
{
	plan_call(plans, task, SYS_mremap, IMM(from), IMM(size), IMM(size),
		  IMM(MREMAP_MAYMOVE | MREMAP_FIXED), IMM(to));
	plan_accept_equal(plans, (int64_t)to);
}

static void move_parked(struct plans *plans, uint32_t task, const struct memory_source *source, size_t special,
			uint64_t to)
{
	move(plans, task, in_group(source, special, source->parked.start), to, special_size(source, special));
}

static void drop_parked(struct plans *plans, uint32_t task, const struct memory_source *source, size_t special)
{
	plan_call(plans, task, SYS_munmap, IMM(in_group(source, special, source->parked.start)),
		  IMM(special_size(source, special)));
}

void memory_park(struct plans *plans, uint32_t task, const struct memory_source *source)
{
	plan_note(plans, "vDSO out of the way");
	for (size_t i = 0; i < source->n_specials; i++)
		move(plans, task, source->specials[i].start, in_group(source, i, source->parked.start),
		     special_size(source, i));
}

static const image_vma *special_named(const image_mm *mm, const char *name)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (mm->vmas.vmas_val[i].kind == VMA_SPECIAL && strcmp(mm->vmas.vmas_val[i].name, name) == 0)
			return &mm->vmas.vmas_val[i];
	return NULL;
}

/* --- a program of another kernel build (vdso.h) ---------------------------------------------- */

struct search {
	uint64_t size, around;
	uint64_t best; /* 0: none yet */
};

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* A gap in the address space: is there room nearer than what was found? */
static void consider(struct search *search, uint64_t start, uint64_t end)
{
	if (end < start || end - start < search->size)
		return;
	uint64_t at = start > search->around ? start : end - search->size;
	if (!search->best || distance(at, search->around) < distance(search->best, search->around))
		search->best = at;
}

/* Free addresses for this kernel's group as near to the old vDSO as they come. Not right above the heap, which
 * may grow there, nor below what grows down. */
static uint64_t find_place(const struct memory_source *source, const image_mm *mm, const image_vma *old)
{
	struct search search = { .size = group_size(source), .around = old->start };
	uint64_t from = LOWEST, ours_start = source->control.start, ours_end = source->parked.end;
	for (u_int i = 0; i <= mm->vmas.vmas_len; i++) {
		const image_vma *vma = i < mm->vmas.vmas_len ? &mm->vmas.vmas_val[i] : NULL;
		uint64_t to = vma ? vma->start : HIGHEST;
		bool grows = (vma && vma->flags & MAP_GROWSDOWN) ||
			     (from >= mm->start_brk && from <= mm->brk + STORE_PAGE);
		if (!grows && from < ours_end && to > ours_start) {
			consider(&search, from, ours_start);
			consider(&search, ours_end, to);
		} else if (!grows) {
			consider(&search, from, to);
		}
		from = vma && vma->end > from ? vma->end : from;
	}
	return distance(search.best, old->start) < VDSO_REACH ? search.best : 0;
}

static void name_old(struct plans *plans, uint32_t task, const image_vma *vma)
{
	char name[64];
	snprintf(name, sizeof(name), "old %.*s", (int)strcspn(vma->name + 1, "]"), vma->name + 1);
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_VMA), IMM(PR_SET_VMA_ANON_NAME), IMM(vma->start),
		  IMM(vma->end - vma->start), DATA(plans_data(plans, name, strlen(name) + 1, 1)));
	plan_accept_any(plans); /* a kernel without CONFIG_ANON_VMA_NAME: only /proc shows it */
}

static void map_old(struct plans *plans, uint32_t task, const image_vma *vma, unsigned prot)
{
	plan_call(plans, task, SYS_mmap, IMM(vma->start), IMM(vma->end - vma->start), IMM(prot),
		  IMM(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE), IMM(-1), IMM(0));
	plan_accept_equal(plans, (int64_t)vma->start);
}

/* The old code with its entries led to `now`. Forks of one program have it at the same place: the bytes of the
 * last one will do for the next. */
static int lay_old(struct plans *plans, uint32_t task, struct memory_source *source, const image_vma *vma,
		   uint64_t now, struct fsnap_error *err)
{
	const struct vdso_redirection *redirection = source->redirection;
	if (!source->patched || source->patched_by != now - vma->start) {
		cleanup_free uint8_t *bytes = malloc(redirection->size);
		if (!bytes)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "the old vDSO");
		vdso_patch(redirection, vma->start, now, bytes);
		source->patched = plans_data(plans, bytes, redirection->size, 64);
		source->patched_by = now - vma->start;
	}
	plan_note(plans, "old vDSO, whose functions jump to this kernel's");
	map_old(plans, task, vma, PROT_READ | PROT_WRITE);
	plan_copy(plans, task, IMM(vma->start), DATA(source->patched), redirection->size);
	plan_call(plans, task, SYS_mprotect, IMM(vma->start), IMM(vma->end - vma->start), IMM(vma->prot));
	name_old(plans, task, vma);
	return 0;
}

static int redirect(struct plans *plans, uint32_t task, struct memory_source *source, const image_mm *mm,
		    const image_vma *old, struct fsnap_error *err)
{
	uint64_t group = source->n_specials ? find_place(source, mm, old) : 0, now = 0;
	if (old->end - old->start != source->redirection->size)
		return fail(err, FSNAP_E_KERNEL_LACKS, 0,
			    "the program has only a part of its vDSO, and this kernel is another build");
	if (source->n_specials && !group)
		return fail(err, FSNAP_E_KERNEL_LACKS, 0,
			    "no room for this kernel's vDSO near that of the program, which is of another build");
	plan_note(plans, "vDSO of this kernel, beside that of the program");
	for (size_t i = 0; i < source->n_specials; i++) {
		uint64_t to = in_group(source, i, group);
		move_parked(plans, task, source, i, to);
		if (strcmp(source->specials[i].name, "[vdso]") == 0)
			now = to;
	}
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind != VMA_SPECIAL || vma == old)
			continue;
		plan_note(plans, "zeroes for old %s", vma->name);
		map_old(plans, task, vma, PROT_READ);
		name_old(plans, task, vma);
	}
	return lay_old(plans, task, source, old, now, err);
}

/* --- the whole ---------------------------------------------------------------------------------- */

int memory_specials(struct plans *plans, uint32_t task, struct memory_source *source, const image_mm *mm,
		    struct fsnap_error *err)
{
	const image_vma *vdso = special_named(mm, "[vdso]");
	if (source->redirection && vdso)
		return redirect(plans, task, source, mm, vdso, err);
	plan_note(plans, "vDSO to its old place");
	for (size_t i = 0; i < source->n_specials; i++) {
		const image_vma *vma = special_named(mm, source->specials[i].name);
		if (vma && special_size(source, i) != vma->end - vma->start && !source->redirection) {
			fail(err, FSNAP_E_KERNEL_LACKS, 0, "the program has only a part of its %s", vma->name);
			return error_hint(err, "this cannot be restored yet");
		}
		/* A program that has unmapped it must not keep ours. */
		if (vma && !source->redirection)
			move_parked(plans, task, source, i, vma->start);
		else
			drop_parked(plans, task, source, i);
	}
	return 0;
}
