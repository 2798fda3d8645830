/*
 * uring_ring.c - the memory of a ring: mapped here, or, where a program has it among its own (SETUP_NO_MMAP), read and
 * written there.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

int ring_setup(const image_file_io_uring *state, unsigned more_flags,
	       struct io_uring_params *params)
{
	const unsigned own = IORING_SETUP_ATTACH_WQ | IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | SETUP_NO_MMAP |
			     SETUP_REGISTERED_FD_ONLY;
	*params = (struct io_uring_params){
		.flags = (state->flags & ~own) | more_flags,
		.cq_entries = state->cq_entries,
	};
	return (int)syscall(SYS_io_uring_setup, state->sq_entries, params);
}

void ring_measure(struct ring *ring, const struct io_uring_params *params)
{
	*ring = (struct ring){
		.params = *params,
		.sqe = sizeof(struct io_uring_sqe) << !!(params->flags & IORING_SETUP_SQE128),
		.cqe = sizeof(struct io_uring_cqe) << !!(params->flags & IORING_SETUP_CQE32),
	};
	size_t array = params->flags & SETUP_NO_SQARRAY
			       ? 0
			       : params->sq_off.array + params->sq_entries * 4;
	ring->rings_size = params->cq_off.cqes + params->cq_entries * ring->cqe;
	ring->rings_size = ring->rings_size > array ? ring->rings_size : array;
	ring->sqes_size = params->sq_entries * ring->sqe;
}

int ring_map(struct ring *ring, int fd, bool write, struct fsnap_error *err)
{
	int prot = write ? PROT_READ | PROT_WRITE : PROT_READ;
	/* One mapping holds both rings: IORING_FEAT_SINGLE_MMAP, Linux 5.4. */
	ring->rings = mmap(NULL, ring->rings_size, prot, MAP_SHARED | MAP_POPULATE, fd,
			   IORING_OFF_SQ_RING);
	ring->sqes =
		mmap(NULL, ring->sqes_size, prot, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
	if (ring->rings != MAP_FAILED && ring->sqes != MAP_FAILED)
		return 0;
	fail(err, FSNAP_E_SYSTEM, errno, "the memory of an io_uring");
	ring_unmap(ring);
	return -1;
}

int ring_fetch(struct ring *ring, int process, uint64_t rings, uint64_t sqes, struct fsnap_error *err)
{
	ring->process = process;
	ring->rings_address = rings;
	ring->sqes_address = sqes;
	ring->rings = malloc(ring->rings_size);
	ring->sqes = malloc(ring->sqes_size);
	if (!ring->rings || !ring->sqes)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	if (pread(process, ring->rings, ring->rings_size, (off_t)rings) == (ssize_t)ring->rings_size &&
	    pread(process, ring->sqes, ring->sqes_size, (off_t)sqes) == (ssize_t)ring->sqes_size)
		return 0;
	return fail(err, FSNAP_E_SYSTEM, errno, "the memory of an io_uring");
}

void ring_unmap(struct ring *ring)
{
	if (ring->process) {
		free(ring->rings);
		free(ring->sqes);
		close(ring->process);
		ring->process = 0;
		ring->rings = ring->sqes = NULL;
	}
	if (ring->rings && ring->rings != MAP_FAILED)
		munmap(ring->rings, ring->rings_size);
	if (ring->sqes && ring->sqes != MAP_FAILED)
		munmap(ring->sqes, ring->sqes_size);
	ring->rings = ring->sqes = NULL;
}

uint32_t ring_word(const struct ring *ring, uint32_t offset)
{
	uint32_t *word = (uint32_t *)(ring->rings + offset);
	/* What fails here shows as a position that is never reached. */
	if (ring->process && pread(ring->process, word, sizeof(*word), (off_t)(ring->rings_address + offset)) !=
				     sizeof(*word))
		return ~0u;
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

void ring_set(struct ring *ring, uint32_t offset, uint32_t value)
{
	uint32_t *word = (uint32_t *)(ring->rings + offset);
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	ring_put(ring, (const char *)word, sizeof(value));
}

void ring_put(struct ring *ring, const char *at, size_t size)
{
	bool in_rings = at >= ring->rings && at < ring->rings + ring->rings_size;
	uint64_t to = in_rings ? ring->rings_address + (uint64_t)(at - ring->rings) :
				 ring->sqes_address + (uint64_t)(at - ring->sqes);
	if (ring->process && pwrite(ring->process, at, size, (off_t)to) != (ssize_t)size)
		return; /* likewise */
}

void *ring_map_group(int fd, const image_ring_group *group, struct fsnap_error *err)
{
	void *memory = mmap(NULL, uring_group_bytes(group), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
			    (off_t)(OFF_PBUF_RING | (uint64_t)group->id << OFF_PBUF_SHIFT));
	if (memory != MAP_FAILED)
		return memory;
	fail(err, FSNAP_E_SYSTEM, errno, "buffers provided to an io_uring");
	return NULL;
}
