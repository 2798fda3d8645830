/*
 * medium.h - a file as memory: mapped, grown in place, copied to and made durable with libpmem2.
 *
 * What "durable" takes depends on where the file lies: on DAX the CPU caches are flushed, on a
 * disk the page cache is, and on tmpfs nothing outlives the machine, so nothing is done.
 */
#ifndef STORE_MEDIUM_H
#define STORE_MEDIUM_H

#include <stdbool.h>
#include <stdint.h>

#include "store/error.h"

struct medium;

/* Maps bytes [offset, offset + length) of fd for reading. */
struct medium *medium_open_read(int fd, uint64_t offset, uint64_t length, struct fsnap_error *err);

/* Maps `length` bytes of fd, which has them, for reading and writing; it does not grow. */
struct medium *medium_open_scratch(int fd, uint64_t length, struct fsnap_error *err);

/* Maps the first `length` bytes of fd, its present size, for writing, with addresses kept free
 * behind them, so that growing moves nothing. The descriptor stays the caller's. */
struct medium *medium_open_write(int fd, uint64_t length, bool in_memory, struct fsnap_error *err);

/* Makes file and mapping at least `length` bytes long. */
int medium_grow(struct medium *medium, uint64_t length, struct fsnap_error *err);

/* Backs [offset, offset + length) with space and puts its pages into the page table, so that
 * writing there neither fails nor waits. ENOSPC comes from here, never as a signal later. */
int medium_prepare(struct medium *medium, uint64_t offset, uint64_t length,
		   struct fsnap_error *err);

/* tmpfs: asks for 2 MiB folios behind [offset, offset + length). Whatever comes of it is fine. */
void medium_make_huge(struct medium *medium, uint64_t offset, uint64_t length);

void *medium_at(const struct medium *medium, uint64_t offset);
uint64_t medium_length(const struct medium *medium);

/* Copies to the file; durable only after medium_persist(). */
void medium_copy(struct medium *medium, uint64_t offset, const void *from, uint64_t length);

/* Makes content durable: of a range; or of the file with its size and allocation. */
int medium_persist(struct medium *medium, uint64_t offset, uint64_t length,
		   struct fsnap_error *err);
int medium_sync_file(struct medium *medium, struct fsnap_error *err);

/* Does not close the descriptor. NULL is fine. */
void medium_close(struct medium *medium);

/* Tests only: told of every range once it is durable, in order. */
extern void (*medium_persisted_hook)(int fd, uint64_t offset, uint64_t length);

#endif
