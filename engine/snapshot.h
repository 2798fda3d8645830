/*
 * snapshot.h - copy-on-write at the instant of the freeze: what is left to be copied is kept as it is now by children
 * that share it, and copied from there when the tree runs again.
 *
 * A child of a process is made by a helper that shares its memory and ends at once: so nobody in the tree is its parent.
 * It runs nothing but the agent, holds no descriptor of the program, blocks all signals, and ends when we do (it sleeps
 * on a pidfd of ours). What a child does not inherit as it is (MADV_DONTFORK, MADV_WIPEONFORK, huge pages of the system's
 * pool, what is shared) is copied while the tree stands still.
 *
 * Page tables are copied during the freeze: 27 ms per GiB in small pages, whatever was written, and until the
 * children are gone each first write costs the program 4 us instead of 1.4.
 */
#ifndef ENGINE_SNAPSHOT_H
#define ENGINE_SNAPSHOT_H

#include "engine/dump.h"

/* The tree stands still: if copying would take longer than the freeze may (max_freeze_us), and this does not, takes over
 * what can be copied later from dump->jobs. What cannot be had stays there, with a note. */
int snapshot_take(struct dump *dump, struct fsnap_error *err);

/* So many pages are to be copied from there. */
uint64_t snapshot_pages(const struct dump *dump);

/* The tree runs again: copies, and lets the children end. */
int snapshot_copy(struct dump *dump, struct fsnap_error *err);

void snapshot_free(struct dump *dump);

#endif
