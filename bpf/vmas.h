/*
 * vmas.h - have the mappings of a process changed, or what was said about them (madvise(2), mlock(2))? Which have no pages of
 * its own?
 */
#ifndef BPF_VMAS_H
#define BPF_VMAS_H

#include <stdint.h>
#include <sys/types.h>

#include "bpf/vmas_shape.h"
#include "store/error.h"

struct vmas_reader;

/* Loads the iterator: some 20 ms. NULL: this kernel or this caller may not; err says why. */
struct vmas_reader *vmas_open(struct fsnap_error *err);
void vmas_close(struct vmas_reader *reader);

/* A sum over places and flags of all mappings, 0.1 ms: the same as long as none of these changes. 0: not to be had. */
uint64_t vmas_sum(struct vmas_reader *reader, pid_t tid);

/* Ranges of mappings of files, by address, in which no page is the process' own, none is in swap, and there is no other
 * entry either; as long as it stands still. Valid until the next question. */
const struct vmas_range *vmas_bare(struct vmas_reader *reader, pid_t tid, size_t *n);

/* Counts that the kernel keeps of an address space, 10 us. While `locked` is the same no mapping was made, changed or removed;
 * while `taken_away` is, of each page that was there the entry in the page tables was not removed. */
struct vmas_counts vmas_counts(struct vmas_reader *reader, pid_t tid);

#endif
