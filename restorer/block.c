/*
 * block.c - blocks of the image on their way into memory. A block is read as a whole, into memory of the
 * pager's own, and checked there: what is given out is what was checked, whatever becomes of the file meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "restorer/pager_private.h"

#define NEAR 8u /* pages between two that are worth reading, too */
#define BLOCK (STORE_BLOCK_PAGES * STORE_PAGE)

/* Room for what is to be decoded. What was encrypted stays out of core files here, too. */
static int coded_open(struct pager *pager, char *buffers)
{
	char *stored = mmap(NULL, PAGER_SLOTS * (size_t)BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stored == MAP_FAILED)
		return fail(&pager->err, FSNAP_E_NOMEM, errno, "memory for blocks of the image");
	for (unsigned i = 0; i < PAGER_SLOTS; i++)
		pager->slots[i].stored = stored + i * (size_t)BLOCK;
	madvise(buffers, PAGER_SLOTS * (size_t)BLOCK, MADV_DONTDUMP);
	image_lock_keys(pager->order->image);
	return 0;
}

int blocks_open(struct pager *pager)
{
	char *buffers = mmap(NULL, PAGER_SLOTS * (size_t)BLOCK, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffers == MAP_FAILED)
		return fail(&pager->err, FSNAP_E_NOMEM, errno, "memory for blocks of the image");
	madvise(buffers, PAGER_SLOTS * (size_t)BLOCK, MADV_HUGEPAGE);
	for (unsigned i = 0; i < PAGER_SLOTS; i++)
		pager->slots[i].buffer = buffers + i * (size_t)BLOCK;
	if (pager->order->decoder && coded_open(pager, buffers) < 0)
		return -1;
	/* Without it, reading waits. */
	pager->has_ring = io_uring_queue_init(PAGER_READS, &pager->ring, 0) == 0;
	return 0;
}

struct slot *blocks_find(struct pager *pager, uint64_t block, uint32_t page)
{
	for (unsigned i = 0; i < PAGER_SLOTS; i++) {
		struct slot *slot = &pager->slots[i];
		if (slot->state != SLOT_FREE && slot->block == block && slot->valid[page / 64] >> page % 64 & 1)
			return slot;
	}
	return NULL;
}

bool blocks_reading(const struct pager *pager)
{
	for (unsigned i = 0; i < PAGER_SLOTS; i++)
		if (pager->slots[i].state == SLOT_READING)
			return true;
	return false;
}

static int check_pages(struct pager *pager, const struct slot *slot)
{
	for (size_t i = 0; i < slot->n_entries; i++) {
		uint64_t page = slot->entries[i].page % STORE_BLOCK_PAGES;
		if (record_checksum(slot->buffer + page * STORE_PAGE) != slot->entries[i].checksum)
			return fail(&pager->err, FSNAP_E_IMAGE_CORRUPT, 0,
				    "image %s: page %llu of block %llu differs from its checksum in the record",
				    image_name(pager->order->image), (unsigned long long)page,
				    (unsigned long long)slot->block);
	}
	return 0;
}

/* Is it what was stored, and if need be decoded, in the slot's buffer? */
static int check(struct pager *pager, struct slot *slot)
{
	const struct image *image = pager->order->image;
	if (slot->coded)
		return image_decode_block(image, slot->block, slot->stored, slot->buffer, pager->order->decoder,
					  &pager->err);
	return slot->entries ? check_pages(pager, slot) :
			       image_check_block(image, slot->block, slot->buffer, &pager->err);
}

static int arrived(struct pager *pager, struct slot *slot, int64_t bytes)
{
	if (bytes < 0)
		return fail(&pager->err, FSNAP_E_STORE_IO, (int)-bytes, "image %s: reading it",
			    image_name(pager->order->image));
	if ((uint64_t)bytes < slot->asked)
		return fail(&pager->err, FSNAP_E_IMAGE_TRUNCATED, 0, "image %s: became shorter while it was read",
			    image_name(pager->order->image));
	if (check(pager, slot) < 0)
		return -1;
	slot->state = SLOT_READY;
	slot->segment = pager->pending.first[slot->block];
	slot->from = 0;
	return 0;
}

static char *place_to_read(const struct slot *slot)
{
	return slot->coded ? slot->stored : slot->buffer;
}

/* At once, if that needs no disk. -1: it does. */
static int64_t read_now(struct pager *pager, struct slot *slot, const struct image_extent *extent)
{
	struct iovec to = { place_to_read(slot), extent->bytes };
	ssize_t n = -1;
	if (!pager->plain && pager->has_ring) {
		n = preadv2(extent->fd, &to, 1, (off_t)extent->offset, RWF_NOWAIT);
		if (n < 0 && errno == EOPNOTSUPP)
			pager->plain = true;
	}
	if (pager->plain || !pager->has_ring)
		n = pread(extent->fd, to.iov_base, extent->bytes, (off_t)extent->offset);
	if (pager->plain || !pager->has_ring)
		return n < 0 ? -errno : n;
	return n == (ssize_t)extent->bytes ? n : -EAGAIN;
}

/* While pages are recorded, blocks stay to be asked again, until another one needs the place. */
static struct slot *free_slot(struct pager *pager)
{
	struct slot *old = NULL;
	for (unsigned i = 0; i < PAGER_SLOTS; i++) {
		if (pager->slots[i].state == SLOT_FREE)
			return &pager->slots[i];
		if (pager->slots[i].state == SLOT_READY && (!old || pager->slots[i].used < old->used))
			old = &pager->slots[i];
	}
	return pager->recording ? old : NULL;
}

static void ask(struct pager *pager, struct slot *slot, const struct image_extent *extent, uint64_t from, uint64_t bytes)
{
	struct io_uring_sqe *sqe;
	while (!(sqe = io_uring_get_sqe(&pager->ring)))
		io_uring_submit(&pager->ring);
	io_uring_prep_read(sqe, extent->fd, place_to_read(slot) + from, (unsigned)bytes, extent->offset + from);
	io_uring_sqe_set_data(sqe, slot);
	slot->reads++;
	slot->asked += bytes;
}

struct slot *blocks_read(struct pager *pager, uint64_t block)
{
	struct slot *slot = free_slot(pager);
	if (!slot)
		return NULL;
	slot->entries = NULL;
	slot->reads = 0;
	slot->got = slot->asked = 0;
	slot->used = ++pager->clock;
	memset(slot->valid, 0xff, sizeof(slot->valid));
	struct image_extent extent = image_block_extent(pager->order->image, block);
	slot->block = block;
	slot->coded = extent.coded;
	slot->state = SLOT_READING;
	int64_t n = read_now(pager, slot, &extent);
	if (n != -EAGAIN) {
		slot->asked = extent.bytes;
		arrived(pager, slot, n);
		return slot;
	}
	ask(pager, slot, &extent, 0, extent.bytes);
	io_uring_submit(&pager->ring);
	return slot;
}

/* The recorded pages of the next block that has some; those near each other in one go. */
static struct slot *read_recorded(struct pager *pager)
{
	const struct record_entry *all = pager->order->played, *entries = &all[pager->played];
	uint64_t block = entries->page / STORE_BLOCK_PAGES, end = 0;
	size_t n = 1, left = pager->order->n_played - pager->played;
	while (n < left && entries[n].page / STORE_BLOCK_PAGES == block)
		n++;
	struct image_extent extent = image_block_extent(pager->order->image, block);
	struct slot *slot = extent.coded ? blocks_read(pager, block) : free_slot(pager); /* coded: all or nothing */
	if (!slot)
		return NULL;
	pager->played += n;
	if (extent.coded)
		return slot;
	*slot = (struct slot){ .state = SLOT_READING, .buffer = slot->buffer, .stored = slot->stored, .block = block,
			       .entries = entries, .n_entries = n };
	for (size_t i = 0, j; i < n; i = j) {
		uint64_t first = entries[i].page % STORE_BLOCK_PAGES;
		for (j = i; j < n && (j == i || entries[j].page % STORE_BLOCK_PAGES - end <= NEAR); j++) {
			end = entries[j].page % STORE_BLOCK_PAGES;
			slot->valid[end / 64] |= 1ull << end % 64;
		}
		ask(pager, slot, &extent, first * STORE_PAGE, (end + 1 - first) * STORE_PAGE);
	}
	io_uring_submit(&pager->ring);
	return slot;
}

int blocks_reap(struct pager *pager)
{
	struct io_uring_cqe *cqe;
	while (pager->has_ring && io_uring_peek_cqe(&pager->ring, &cqe) == 0) {
		struct slot *slot = io_uring_cqe_get_data(cqe);
		int64_t n = cqe->res;
		io_uring_cqe_seen(&pager->ring, cqe);
		slot->got = n < 0 ? n : slot->got < 0 ? slot->got : slot->got + n;
		if (--slot->reads == 0)
			arrived(pager, slot, slot->got);
	}
	return error_is_set(&pager->err) ? -1 : 0;
}

static bool is_wanted(const struct pager *pager, uint64_t block)
{
	for (uint32_t i = pager->pending.first[block]; i != PENDING_NONE; i = pager->pending.segments[i].next) {
		const struct segment *segment = &pager->pending.segments[i];
		if ((segment->wanted[0] | segment->wanted[1] | segment->wanted[2] | segment->wanted[3]) &&
		    pager->uffd[segment->space] >= 0)
			return true;
	}
	return false;
}

/* From the cursor on, once around. */
static bool next_block(struct pager *pager, uint64_t *block)
{
	uint64_t blocks = image_blocks(pager->order->image);
	for (uint64_t looked = 0; looked < blocks; looked++) {
		*block = pager->cursor;
		pager->cursor = pager->cursor + 1 < blocks ? pager->cursor + 1 : 0;
		bool here = false;
		for (unsigned i = 0; i < PAGER_SLOTS; i++)
			here |= pager->slots[i].state != SLOT_FREE && pager->slots[i].block == *block;
		if (!here && is_wanted(pager, *block))
			return true;
	}
	return false;
}

int blocks_ahead(struct pager *pager)
{
	unsigned reading = 0;
	uint64_t block;
	for (unsigned i = 0; i < PAGER_SLOTS; i++)
		reading += pager->slots[i].state == SLOT_READING;
	if (pager->played < pager->order->n_played && pager->has_ring) {
		/* Two are left for who waits for something else. */
		while (pager->played < pager->order->n_played && reading++ < PAGER_SLOTS - 2 && read_recorded(pager))
			;
		return error_is_set(&pager->err) ? -1 : 0;
	}
	/* What is there already is placed before more of it is fetched: it would only be copied out of the caches. */
	for (bool ready = false; !ready && reading < PAGER_AHEAD && next_block(pager, &block); reading++) {
		struct slot *slot = blocks_read(pager, block);
		ready = !slot || slot->state == SLOT_READY;
	}
	return error_is_set(&pager->err) ? -1 : 0;
}
