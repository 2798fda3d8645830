/*
 * stream.h - which part of an address space comes when its program runs already, and the operations that leave
 * room for it. Who brings it: pager.h.
 *
 * Streamed are private anonymous mappings as a whole, where nothing was said that would let the
 * missing of a page show: see may_stream(). Of these, pages that the kernel touches on its own behalf
 * when a thread ends or is moved (thread control blocks, lists of robust futexes), and those under the
 * stack pointers, are brought by the plan, as is everything where it is little.
 */
#ifndef RESTORER_STREAM_H
#define RESTORER_STREAM_H

#include "restorer/memory.h"

struct stream {
	bool *vma; /* by mapping: it is streamed */
	/* Runs of the address space, by page: for the plan, outside of these mappings and inside; for the pager. */
	struct page_run *now, *first, *later;
	size_t n_now, n_first, n_later;
	uint64_t pages; /* of later */
	struct memory_range *huge; /* what of it was in huge pages */
	size_t n_huge;
};

/* Sorts out what comes when. `brought` and `n_brought` are the runs the plan has to bring without us; `inherited`
 * are mappings that are there already (NULL: none); `all`: small ones, too; `touched` are addresses. stream->pages is 0 where all is to
 * come now. */
int stream_choose(struct stream *stream, const image_mm *mm, const struct page_run *brought, size_t n_brought,
		  const bool *inherited, bool all, const uint64_t *touched, size_t n_touched,
		  struct fsnap_error *err);
void stream_free(struct stream *stream);

/* When the mappings are there: a userfaultfd that watches those that are streamed, with the number `seat`. */
void stream_watch(struct plans *plans, uint32_t task, const image_mm *mm, const struct stream *stream, int seat);

#endif
