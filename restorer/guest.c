/*
 * guest.c - what the pager does to an address space, by its userfaultfd, and what it learns of it.
 *
 * Everything that changes mappings is told before the next page may be placed: until the event has been read,
 * placing fails with EAGAIN (fs/userfaultfd.c, mmap_changing). So what is wanted is always what
 * the program still expects to find:
 *
 *	UFFD_EVENT_REMOVE  madvise(2): those pages are zeroes from now on
 *	UFFD_EVENT_UNMAP   they are nobody's
 *	UFFD_EVENT_REMAP   they are wanted elsewhere
 *	UFFD_EVENT_FORK    the child wants them, too
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "restorer/pager_private.h"

#define NOWHERE 0x7fffffffe000ull /* no mapping of ours is there */
#define HUNGER_NS 10000000000ull  /* without memory for so long, and it is over */

static int cannot(struct pager *pager, uint32_t space, const char *what)
{
	return fail(&pager->err, FSNAP_E_RESTORE_STEP, errno, "userfaultfd %u: %s", space, what);
}

/* --- the list of them ---------------------------------------------------------------------- */

static int watch(struct pager *pager, uint32_t space)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = space };
	if (epoll_ctl(pager->epoll, EPOLL_CTL_ADD, pager->uffd[space], &event) < 0)
		return cannot(pager, space, "watching it");
	pager->alive++;
	return 0;
}

int guests_open(struct pager *pager)
{
	const struct pager_order *order = pager->order;
	pager->uffd_room = order->n + 4096;
	pager->uffd = mmap(NULL, pager->uffd_room * sizeof(int), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pager->zeroes = mmap(NULL, STORE_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pager->uffd == MAP_FAILED || pager->zeroes == MAP_FAILED ||
	    pending_open(&pager->pending, order->image) < 0)
		return fail(&pager->err, FSNAP_E_NOMEM, errno, "what is to be brought");
	for (size_t i = 0; i < order->n; i++) {
		if (pending_add(&pager->pending, order->spaces[i].runs, order->spaces[i].n) < 0)
			return fail(&pager->err, FSNAP_E_NOMEM, errno, "what is to be brought");
		pager->uffd[i] = order->spaces[i].uffd;
		if (pager->uffd[i] >= 0 && watch(pager, (uint32_t)i) < 0)
			return -1;
	}
	pager->progress->pages = pager->pending.left;
	return 0;
}

/* Closing the last descriptor unregisters all it watched, and mappings are merged again. */
void guest_over(struct pager *pager, uint32_t space)
{
	uint64_t left = pager->pending.left;
	if (pager->uffd[space] < 0)
		return;
	pending_forget(&pager->pending, space, 0, UINT64_MAX);
	pager->progress->forgotten += left - pager->pending.left;
	close(pager->uffd[space]); /* leaves the epoll, too */
	pager->uffd[space] = -1;
	pager->alive--;
}

bool guest_is_gone(int uffd)
{
	struct uffdio_zeropage zero = { .range = { NOWHERE, STORE_PAGE } };
	return ioctl(uffd, UFFDIO_ZEROPAGE, &zero) < 0 && errno == ESRCH;
}

/* --- events ------------------------------------------------------------------------------------ */

static int forked(struct pager *pager, uint32_t parent, int uffd)
{
	size_t space = pager->pending.n_spaces;
	if (space == pager->uffd_room) {
		void *more = mremap(pager->uffd, space * sizeof(int), 2 * space * sizeof(int), MREMAP_MAYMOVE);
		if (more == MAP_FAILED)
			return cannot(pager, parent, "room for a child");
		pager->uffd = more;
		pager->uffd_room = 2 * space;
	}
	if (pending_fork(&pager->pending, parent) < 0)
		return cannot(pager, parent, "room for a child");
	pager->uffd[space] = uffd;
	pager->progress->pages += pager->pending.spaces[space].left;
	if (watch(pager, (uint32_t)space) < 0)
		return -1;
	if (pager->pending.spaces[space].left == 0)
		guest_over(pager, (uint32_t)space);
	return 0;
}

static void forget(struct pager *pager, uint32_t space, uint64_t start, uint64_t end)
{
	uint64_t left = pager->pending.left;
	pending_forget(&pager->pending, space, start / STORE_PAGE, end / STORE_PAGE);
	pager->progress->forgotten += left - pager->pending.left;
}

static int understand(struct pager *pager, uint32_t space, const struct uffd_msg *event)
{
	switch (event->event) {
	case UFFD_EVENT_PAGEFAULT:
		pager->faults[pager->n_faults++] = (struct fault){
			.space = space, .page = event->arg.pagefault.address / STORE_PAGE,
			.write = event->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
		};
		pager->progress->faults++;
		return 0;
	case UFFD_EVENT_FORK:
		return forked(pager, space, (int)event->arg.fork.ufd);
	case UFFD_EVENT_REMAP:
		if (pending_move(&pager->pending, space, event->arg.remap.from / STORE_PAGE,
				 event->arg.remap.to / STORE_PAGE, event->arg.remap.len / STORE_PAGE) < 0)
			return cannot(pager, space, "room for what was moved");
		return 0;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		forget(pager, space, event->arg.remove.start, event->arg.remove.end);
		return 0;
	default:
		return fail(&pager->err, FSNAP_E_RESTORE_STEP, 0, "userfaultfd: event %u", event->event);
	}
}

/* One at a time: a fork behind a fault must find what the fault found. */
int guest_events(struct pager *pager, uint32_t space)
{
	struct uffd_msg event;
	while (pager->uffd[space] >= 0 && pager->n_faults < PAGER_FAULTS) {
		ssize_t n = read(pager->uffd[space], &event, sizeof(event));
		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(event))
			return n < 0 && errno != EAGAIN ? cannot(pager, space, "reading events") : 0;
		if (understand(pager, space, &event) < 0)
			return -1;
	}
	return 0;
}

/* --- pages ----------------------------------------------------------------------------------------- */

static void wake(const struct pager *pager, uint32_t space, uint64_t page)
{
	struct uffdio_range range = { page * STORE_PAGE, STORE_PAGE };
	ioctl(pager->uffd[space], UFFDIO_WAKE, &range);
}

/* The kernel has no memory now: a moment later it may. */
static int hunger(struct pager *pager, uint32_t space)
{
	uint64_t now = pager_now();
	errno = ENOMEM;
	if (pager->hungry_ns && now - pager->hungry_ns > HUNGER_NS)
		return cannot(pager, space, "placing a page");
	if (!pager->hungry_ns)
		pager->hungry_ns = now;
	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	return 0;
}

/* Returns pages placed; 0: look again; -1 with errno as it is. */
static int64_t copy(struct pager *pager, uint32_t space, uint64_t page, uint32_t n, const void *from)
{
	struct uffdio_copy order = { .dst = page * STORE_PAGE, .src = (uint64_t)(uintptr_t)from,
				     .len = (uint64_t)n * STORE_PAGE };
	if (ioctl(pager->uffd[space], UFFDIO_COPY, &order) == 0)
		return n;
	if (order.copy > 0)
		return order.copy / STORE_PAGE;
	return errno == EAGAIN ? 0 : -1;
}

static void settled(struct pager *pager, uint32_t space)
{
	if (pager->pending.spaces[space].left == 0)
		guest_over(pager, space);
}

static bool is_valid(const struct slot *slot, uint32_t page)
{
	return slot->valid[page / 64] >> page % 64 & 1;
}

/* As pending_next(), of those that the slot has. */
static uint32_t next_valid(const struct segment *segment, const struct slot *slot, uint32_t from, uint32_t most,
			   uint32_t *first)
{
	uint32_t n, valid = 0;
	while ((n = pending_next(segment, from, most, first)) && !is_valid(slot, segment->in + *first))
		from = *first + 1;
	while (valid < n && is_valid(slot, segment->in + *first + valid))
		valid++;
	return valid;
}

int guest_place(struct pager *pager, const struct slot *slot, uint32_t number, uint32_t from, uint32_t n, bool *again)
{
	struct segment *segment = &pager->pending.segments[number];
	uint32_t space = segment->space, first;
	*again = false;
	n = next_valid(segment, slot, from, n, &first);
	if (n == 0 || pager->uffd[space] < 0)
		return 0;
	const char *bytes = slot->buffer + (segment->in + first) * STORE_PAGE;
	int64_t placed = copy(pager, space, segment->page + first, n, bytes);
	/* Pieces of what was one mapping are placed one by one. */
	if (placed < 0 && errno == ENOENT && n > 1)
		placed = copy(pager, space, segment->page + first, 1, bytes);
	if (placed > 0) {
		pager->hungry_ns = 0;
		pager->progress->streamed += (uint64_t)placed;
		pending_arrived(&pager->pending, number, first, (uint32_t)placed);
		settled(pager, space);
		return (int)placed;
	}
	if (placed == 0 || errno == EAGAIN) {
		*again = true;
		return 0;
	}
	switch (errno) {
	case EEXIST: /* something is there: whoever put it there wants to find that */
	case ENOENT: /* a child has no such mapping (MADV_DONTFORK) */
		forget(pager, space, (segment->page + first) * STORE_PAGE, (segment->page + first + 1) * STORE_PAGE);
		wake(pager, space, segment->page + first);
		settled(pager, space);
		return 1;
	case ESRCH: /* it has ended, or runs another program */
		guest_over(pager, space);
		return 0;
	case ENOMEM:
		*again = true;
		return hunger(pager, space);
	default:
		return cannot(pager, space, "placing a page");
	}
}

/* For a write, a page of its own at once: the shared one of zeroes would be copied the moment after. */
int guest_zero(struct pager *pager, const struct fault *fault)
{
	struct uffdio_zeropage zero = { .range = { fault->page * STORE_PAGE, STORE_PAGE } };
	if (pager->uffd[fault->space] < 0)
		return 1;
	int64_t placed = fault->write ? copy(pager, fault->space, fault->page, 1, pager->zeroes) :
			 ioctl(pager->uffd[fault->space], UFFDIO_ZEROPAGE, &zero) == 0 ? 1 :
			 errno == EAGAIN ? 0 : -1;
	if (placed > 0)
		pager->progress->zeroed++;
	if (placed >= 0)
		return (int)placed;
	switch (errno) {
	case EEXIST: /* it has come meanwhile */
	case ENOENT: /* the mapping has gone meanwhile: whoever waits is to find that out */
		wake(pager, fault->space, fault->page);
		return 1;
	case ESRCH:
		guest_over(pager, fault->space);
		return 1;
	case ENOMEM:
		return hunger(pager, fault->space);
	default:
		return cannot(pager, fault->space, "a page of zeroes");
	}
}
