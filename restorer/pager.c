#define _GNU_SOURCE
#include "restorer/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "restorer/pager_private.h"
#include "store/scope.h"

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

#define FEATURES (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
		  UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_THREAD_ID)

#define PATIENCE_MS 50
#define RELEASE_MS 1 /* it is looked for that often */

/* In epoll, besides numbers of spaces: */
#define NEWS_RING (1ull << 32)
#define NEWS_GUARDIAN (2ull << 32)
#define NEWS_ENDED (3ull << 32) /* and the space whose process it was */

uint64_t pager_features(void)
{
	return FEATURES;
}

bool pager_possible(struct fsnap_error *err)
{
	cleanup_fd int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0)
		return true;
	fail(err, FSNAP_E_PERMISSION, errno, "userfaultfd with the events that streaming needs");
	return false;
}

/* --- faults --------------------------------------------------------------------------------- */

static void record(struct pager *pager, const struct slot *slot, uint32_t page)
{
	if (pager->n_recorded == pager->most_recorded)
		return;
	pager->recorded[pager->n_recorded++] = (struct record_entry){
		.page = slot->block * STORE_BLOCK_PAGES + page,
		/* Blocks that are coded come as a whole, with what vouches for them; and of a page that is encrypted
		 * nobody is to learn as much as a checksum. */
		.checksum = slot->coded ? 0 : record_checksum(slot->buffer + (size_t)page * STORE_PAGE),
	};
}

/* Some pages around the one that is waited for, which come from the same block. */
static int place_cluster(struct pager *pager, const struct slot *slot, uint32_t segment, uint64_t page, bool *again)
{
	uint32_t at = (uint32_t)(page - pager->pending.segments[segment].page);
	if (!pager->recording)
		return guest_place(pager, slot, segment, at, PAGER_CLUSTER, again);
	record(pager, slot, pager->pending.segments[segment].in + at);
	return guest_place(pager, slot, segment, at, 1, again);
}

/* 1: done with; 0: later. */
static int serve(struct pager *pager, const struct fault *fault)
{
	if (pager->uffd[fault->space] < 0)
		return 1; /* closing it has woken everybody */
	uint32_t segment = pending_find(&pager->pending, fault->space, fault->page);
	bool again;
	if (segment == PENDING_NONE)
		return guest_zero(pager, fault);
	uint64_t block = pager->pending.segments[segment].block;
	const struct segment *of = &pager->pending.segments[segment];
	const struct slot *slot = blocks_find(pager, block, of->in + (uint32_t)(fault->page - of->page));
	if (!slot)
		slot = blocks_read(pager, block);
	if (error_is_set(&pager->err))
		return -1;
	pager->cursor = block; /* most programs go on from here */
	if (!slot || slot->state != SLOT_READY)
		return 0;
	return place_cluster(pager, slot, segment, fault->page, &again) < 0 ? -1 : !again;
}

static int serve_all(struct pager *pager)
{
	size_t kept = 0;
	for (size_t i = 0; i < pager->n_faults; i++) {
		int done = serve(pager, &pager->faults[i]);
		if (done < 0)
			return -1;
		if (!done)
			pager->faults[kept++] = pager->faults[i];
	}
	pager->n_faults = kept;
	return 0;
}

/* --- everything else ------------------------------------------------------------------------------ */

/* Some pages of a block that is there. Returns whether that was all of it. */
static int place_some(struct pager *pager, struct slot *slot)
{
	uint32_t left = PAGER_CHUNK;
	bool again = false;
	while (left && slot->segment != PENDING_NONE) {
		int n = guest_place(pager, slot, slot->segment, slot->from, left, &again);
		if (n < 0)
			return -1;
		if (again)
			return 0;
		if (n == 0)
			slot->segment = pager->pending.segments[slot->segment].next;
		left -= (uint32_t)n < left ? (uint32_t)n : left;
	}
	if (slot->segment == PENDING_NONE)
		slot->state = SLOT_FREE;
	return 0;
}

static struct slot *ready_slot(struct pager *pager)
{
	for (unsigned i = 0; i < PAGER_SLOTS; i++)
		if (pager->slots[i].state == SLOT_READY)
			return &pager->slots[i];
	return NULL;
}

/* It ends by the clock, or with the tree. */
static void end_recording(struct pager *pager)
{
	const struct pager_order *order = pager->order;
	pager->recording = false;
	if (record_write(order->image, order->record_path, pager->recorded, pager->n_recorded) == 0)
		pager->progress->recorded = pager->n_recorded;
}

/* Until the tree runs, bringing what nobody waits for takes a processor, and the lock of the address space, from those
 * who are finishing it. An image on a disk is worth waiting for: reading takes neither. */
static bool held_back(const struct pager *pager)
{
	return pager->plain && !__atomic_load_n(&pager->progress->released, __ATOMIC_ACQUIRE);
}

static int work(struct pager *pager)
{
	if (pager->recording && pager_now() - pager->order->began_ns > pager->order->record_ns)
		end_recording(pager);
	if (pager->recording || held_back(pager))
		return 0;
	struct slot *slot = ready_slot(pager);
	if (!slot && blocks_ahead(pager) < 0)
		return -1;
	slot = slot ? slot : ready_slot(pager);
	return slot ? place_some(pager, slot) : 0;
}

/* --- news ----------------------------------------------------------------------------------------------- */

static int watch(struct pager *pager, int fd, uint64_t what)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = what };
	return fd < 0 ? 0 : epoll_ctl(pager->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* A process has ended; its address space may live on with another one (vfork(2), CLONE_VM). */
static void ended(struct pager *pager, uint32_t space)
{
	epoll_ctl(pager->epoll, EPOLL_CTL_DEL, pager->order->spaces[space].pidfd, NULL);
	if (pager->uffd[space] >= 0 && guest_is_gone(pager->uffd[space]))
		guest_over(pager, space);
}

static int hear(struct pager *pager, uint64_t what)
{
	if (what == NEWS_RING)
		return 0; /* it is looked at in any case */
	if (what == NEWS_GUARDIAN)
		return guardian_watch(pager) < 0 ? -1 : watch(pager, pager->guardian, NEWS_GUARDIAN);
	if (what >= NEWS_ENDED) {
		ended(pager, (uint32_t)what);
		return 0;
	}
	return guest_events(pager, (uint32_t)what);
}

/* Waits only where nothing can be done but that. */
static int listen_for(struct pager *pager)
{
	struct epoll_event events[PAGER_EVENTS];
	bool idle = pager->recording || (!ready_slot(pager) && !pager->hungry_ns && blocks_reading(pager));
	bool held = held_back(pager);
	int n = epoll_wait(pager->epoll, events, PAGER_EVENTS, held ? RELEASE_MS : idle ? PATIENCE_MS : 0);
	for (int i = 0; i < n; i++)
		if (hear(pager, events[i].data.u64) < 0)
			return -1;
	return blocks_reap(pager);
}

static int run(struct pager *pager)
{
	while (pager->alive)
		if (listen_for(pager) < 0 || serve_all(pager) < 0 || work(pager) < 0)
			return -1;
	return 0;
}

/* --- the process ---------------------------------------------------------------------------------------------- */

static bool in_memory(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static int prepare(struct pager *pager)
{
	const struct pager_order *order = pager->order;
	pager->guardian = -1;
	pager->plain = in_memory(image_descriptor(order->image, 0));
	pager->epoll = epoll_create1(EPOLL_CLOEXEC);
	pager->self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (pager->epoll < 0 || pager->self < 0)
		return fail(&pager->err, FSNAP_E_SYSTEM, errno, "the pager");
	pager->most_recorded = order->record_ns ? image_blocks(order->image) * STORE_BLOCK_PAGES : 0;
	pager->recorded = mmap(NULL, (pager->most_recorded + 1) * sizeof(*pager->recorded), PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pager->recording = pager->most_recorded && pager->recorded != MAP_FAILED;
	if (guests_open(pager) < 0 || blocks_open(pager) < 0 || guardian_start(pager) < 0)
		return -1;
	int result = pager->has_ring ? watch(pager, pager->ring.ring_fd, NEWS_RING) : 0;
	result |= watch(pager, pager->guardian, NEWS_GUARDIAN);
	for (size_t i = 0; i < order->n; i++)
		result |= watch(pager, order->spaces[i].pidfd, NEWS_ENDED | i);
	return result < 0 ? fail(&pager->err, FSNAP_E_SYSTEM, errno, "the pager") : 0;
}

/* A userfaultfd takes small pages. What was in huge ones is made so when it has come; where the program has thrown
 * it away by now, or the system has none to give, that fails, and shows nowhere. */
static void collapse(const struct pager_space *space)
{
	for (size_t i = 0; i < space->n_huge; i++) {
		struct iovec range = { (void *)(uintptr_t)space->huge[i].start,
				       space->huge[i].end - space->huge[i].start };
		syscall(SYS_process_madvise, space->pidfd, &range, 1, MADV_COLLAPSE, 0);
	}
}

void pager_run(void *arg)
{
	static const int deaf[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGTTOU };
	static struct pager pager; /* too large for a stack whose size is the caller's choice */
	const struct pager_order *order = arg;
	struct pager_progress *progress = order->progress;
	prctl(PR_SET_NAME, PAGER_NAME);
	for (size_t i = 0; i < sizeof(deaf) / sizeof(deaf[0]); i++)
		signal(deaf[i], SIG_IGN);
	memset(&pager, 0, sizeof(pager));
	pager.order = order;
	pager.progress = progress;
	progress->pager = getpid();
	if (prepare(&pager) < 0)
		_exit(1); /* nothing of the tree runs yet: the restore fails */
	(void)!write(order->ready, "", 1);
	close(order->ready);
	if (run(&pager) < 0)
		guardian_end_tree(&pager, pager.err.message);
	if (pager.recording)
		end_recording(&pager);
	progress->resident_us = (pager_now() - order->began_ns) / 1000;
	__atomic_store_n(&progress->safe, 1, __ATOMIC_RELEASE);
	for (size_t i = 0; i < order->n && !progress->failed; i++)
		collapse(&order->spaces[i]);
	pager_done(progress);
	_exit(0);
}
