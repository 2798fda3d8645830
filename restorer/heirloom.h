/*
 * heirloom.h - pages that processes of a tree share copy-on-write, restored as shared.
 *
 * A child has its parent's page frames until one of the two writes. The image holds
 * such a frame once, but nobody can be handed a frame of somebody else's private memory:
 * the one way to it is to inherit it. So that is what a restored tree does:
 *
 *	A frame that several processes have at one address is laid by the nearest
 *	ancestor they have in common (which may be one of them) before it forks. Each
 *	of them finds it in what it inherits, and keeps it; the others give it back.
 *
 * Such a page is an *heirloom*. The ancestor need not want it for itself: it may have
 * written to the page since, or run another program. Before its own memory is built an
 * address space is empty, so there is always room to lay what its descendants are to
 * have; when they are born, it gives up what is not its own and goes on as everybody does.
 *
 *	enter    of what was inherited, what nobody below wants is unmapped; new areas are made
 *	lay      heirlooms that this child is the first to want are read from the image
 *	born     the child has everything that was laid until then
 *	settle   areas shrink to mappings of the process itself; pages it does not have are
 *	         dropped (MADV_DONTNEED: zeroes, or the file's); memory_build() makes the rest,
 *	         and overwrites the pages that differ, which breaks the sharing as a write should
 *
 * An ancestor is here who bears a process, or its bearer: engine/family.h has the reasons
 * why that is not always its parent.
 *
 * What must hold:
 *
 *	1. A mapping of the image comes back as one mapping. The kernel does not merge an
 *	   inherited mapping with a fresh one (their anon_vma differ), and mremap(2) refuses
 *	   to work on two. So a mapping is inherited as a whole or not at all: an *area* covers
 *	   the mappings (*claims*) of all who take part, and each cuts its own out of it.
 *	2. Areas are readable and writable, and nothing was said about them (madvise, mlock)
 *	   until they are settled: MADV_DONTFORK, for one, would keep them from the children.
 *	3. What a process finds at birth is what its parent had laid when it was forked, in
 *	   the order in which the plans really fork: it is recorded while they are written.
 *	   Whatever the order, content is right; at worst a frame is not shared.
 *
 * Not shared again: frames at different addresses (mremap(2), or equal pages that KSM
 * merged: the kernel will merge them again), and mappings that overlap others of another
 * sort in the address space of the ancestor. They come back as copies.
 *
 * Images without shared frames are recognised by counting pages and cost nothing.
 * heirloom_find.c says which frames and mappings take part, heirloom_area.c where
 * they are kept, heirloom.c writes the operations.
 */
#ifndef RESTORER_HEIRLOOM_H
#define RESTORER_HEIRLOOM_H

#include "restorer/memory.h"

/* A process of the tree. */
struct heir {
	const image_mm *mm; /* NULL: it has none (it has ended), but may bear others */
	int bearer;	    /* number in the list of the one it is forked by, at last: whose memory it is born
			     * with; -1: the restoring process */
	uint32_t task;
};

struct heirlooms;

/* Finds what the processes share; *out is NULL where that is nothing, which all others here accept. */
int heirlooms_find(struct heirlooms **out, const struct image *image, const struct heir *heirs, size_t n,
		   struct fsnap_error *err);
void heirlooms_free(struct heirlooms *heirlooms);

/* At the beginning of the plan of process `who`, when it has dropped the restorer's memory. */
int heirlooms_enter(struct heirlooms *heirlooms, struct plans *plans, const struct memory_source *source,
		    size_t who, struct fsnap_error *err);

/* Right before it forks `child`, or a helper that will: what is to be there for it; and that it is born
 * then, which is to be said when everything is there for all whom this fork makes. */
int heirlooms_lay(struct heirlooms *heirlooms, struct plans *plans, const struct memory_source *source,
		  size_t who, size_t child, struct fsnap_error *err);
void heirlooms_born(struct heirlooms *heirlooms, size_t who, size_t child);

/* When it has forked all of them. `part` tells memory_build() what is there already; it is valid until
 * heirlooms_free(). */
int heirlooms_settle(struct heirlooms *heirlooms, struct plans *plans, const struct memory_source *source,
		     size_t who, struct memory_part *part, struct fsnap_error *err);

/*
 * For a template, which holds what process `who` would make and lay: areas of anonymous memory, by address, and what
 * lies in them, of several pages for one address one. malloc'ed, both.
 */
int heirlooms_made(const struct heirlooms *heirlooms, size_t who, struct memory_range **areas, size_t *n_areas,
		   struct page_run **laid, size_t *n_laid, struct fsnap_error *err);
/* All that is there when `who` is born, before any plan is written; false: it would make other areas, nothing is. */
bool heirlooms_present(struct heirlooms *heirlooms, size_t who, const struct memory_range *areas, size_t n_areas,
		       const struct page_run *laid, size_t n_laid);
/* Is this mapping of the process inherited? */
bool heirlooms_claims(const struct heirlooms *heirlooms, size_t who, u_int vma);

#endif
