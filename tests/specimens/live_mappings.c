/*
 * Memory that is given back, unmapped, mapped anew, moved, grown, protected, forked and made into huge pages all the
 * time, by a program that knows what must be where: each slot has a model of its content, checked before each change
 * and at the end.  What an earlier copy had is never taken for what is there.
 *
 * harness: restless live
 */
#include <sys/wait.h>

#include "../specimen_memory.h"
#include "../specimen_worker.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { SLOTS = 8, SLOT_PAGES = 1300, HUGE_SLOT = 1, FILE_SLOT = 2, SHARED_SLOT = 3, HEAP_SLOT = 4 };

/* What a page holds: the words of its seed; 0: zeroes, NOTHING: it is not mapped. */
#define NOTHING UINT64_MAX

static struct slot {
	char *at;
	uint64_t seeds[SLOT_PAGES];
} *slots; /* private memory, too */

static volatile uint64_t wrong;
static struct worker worker;
static char *heap;

static uint64_t random_next(void)
{
	static uint64_t state = 88172645463325252ull;
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static size_t random_below(size_t n)
{
	return random_next() % n;
}

static bool page_holds(const char *page, uint64_t seed)
{
	const uint64_t *words = (const uint64_t *)page;
	for (size_t i = 0; i < PAGE / 8; i += 37)
		if (words[i] != (seed ? seed + i : 0))
			return false;
	return true;
}

static void write_pages(struct slot *slot, size_t from, size_t n)
{
	for (size_t i = from; i < from + n; i++) {
		uint64_t seed = random_next() | 1;
		volatile uint64_t *words = (volatile uint64_t *)(slot->at + i * PAGE);
		for (size_t j = 0; j < PAGE / 8; j++)
			words[j] = seed + j;
		slot->seeds[i] = seed;
	}
}

static size_t count_wrong(const struct slot *slot)
{
	size_t n = 0;
	for (size_t i = 0; i < SLOT_PAGES; i++)
		n += slot->seeds[i] != NOTHING && !page_holds(slot->at + i * PAGE, slot->seeds[i]);
	return n;
}

static void set_seeds(struct slot *slot, size_t from, size_t n, uint64_t seed)
{
	for (size_t i = from; i < from + n; i++)
		slot->seeds[i] = seed;
}

static void *map_there(void *at, size_t size, int flags)
{
	return MUST(mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0));
}

/* --- changes; each leaves the model as the memory is ------------------------------------------ */

static void rewrite(struct slot *slot, size_t from, size_t n)
{
	write_pages(slot, from, n);
}

/* The dump may be in the midst of it: pages of which one does not know are not to be judged. */
static void give_back(struct slot *slot, size_t from, size_t n)
{
	bool zeroes = slot != &slots[FILE_SLOT] && slot != &slots[SHARED_SLOT];
	if (!zeroes)
		return;
	set_seeds(slot, from, n, NOTHING);
	MUST(madvise(slot->at + from * PAGE, n * PAGE, MADV_DONTNEED));
	set_seeds(slot, from, n, 0);
}

static void map_anew(struct slot *slot, size_t from, size_t n)
{
	if (slot == &slots[SHARED_SLOT] || slot == &slots[HEAP_SLOT])
		return;
	set_seeds(slot, from, n, NOTHING);
	MUST(munmap(slot->at + from * PAGE, n * PAGE));
	map_there(slot->at + from * PAGE, n * PAGE, MAP_FIXED);
	set_seeds(slot, from, n, 0);
	write_pages(slot, from, n / 2);
}

/* Its pages go elsewhere, and others come to where they were. */
static void move(struct slot *slot, size_t from, size_t n)
{
	(void)from;
	(void)n;
	if (slot == &slots[SHARED_SLOT] || slot == &slots[HEAP_SLOT] || slot == &slots[FILE_SLOT])
		return;
	struct slot *other = &slots[SLOTS - 1];
	static struct slot was, others;
	if (slot == other)
		return;
	was = *slot;
	others = *other;
	char *between = empty_place(SLOT_PAGES * PAGE, PAGE);
	set_seeds(slot, 0, SLOT_PAGES, NOTHING);
	set_seeds(other, 0, SLOT_PAGES, NOTHING);
	for (size_t i = 0; i < SLOT_PAGES; i++) /* what was mapped in pieces is made whole, and can be moved */
		if (was.seeds[i] == NOTHING || others.seeds[i] == NOTHING)
			abort();
	bool moved = mremap(slot->at, SLOT_PAGES * PAGE, SLOT_PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, between) !=
		     MAP_FAILED;
	if (moved && mremap(other->at, SLOT_PAGES * PAGE, SLOT_PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, slot->at) ==
			     MAP_FAILED) {
		/* The other is of several mappings: bring this one home. */
		MUST(mremap(between, SLOT_PAGES * PAGE, SLOT_PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, slot->at));
		moved = false;
	} else if (moved) {
		MUST(mremap(between, SLOT_PAGES * PAGE, SLOT_PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other->at));
	}
	memcpy(slot->seeds, moved ? others.seeds : was.seeds, sizeof(was.seeds));
	memcpy(other->seeds, moved ? was.seeds : others.seeds, sizeof(was.seeds));
}

static void protect(struct slot *slot, size_t from, size_t n)
{
	MUST(mprotect(slot->at + from * PAGE, n * PAGE, PROT_READ));
	for (size_t i = from; i < from + n; i++)
		wrong += slot->seeds[i] != NOTHING && !page_holds(slot->at + i * PAGE, slot->seeds[i]);
	MUST(mprotect(slot->at + from * PAGE, n * PAGE, PROT_READ | PROT_WRITE));
	write_pages(slot, from, n / 3);
}

static void guard(struct slot *slot, size_t from, size_t n)
{
	if (slot == &slots[FILE_SLOT] || slot == &slots[SHARED_SLOT])
		return;
	set_seeds(slot, from, n, NOTHING);
	if (madvise(slot->at + from * PAGE, n * PAGE, MADV_GUARD_INSTALL) < 0) {
		give_back(slot, from, n);
		return;
	}
	usleep(200);
	MUST(madvise(slot->at + from * PAGE, n * PAGE, MADV_GUARD_REMOVE));
	set_seeds(slot, from, n, 0);
}

/* Children have what was there when they were made, and write to it. */
static void multiply(struct slot *slot, size_t from, size_t n)
{
	if (slot == &slots[SHARED_SLOT])
		return;
	pid_t pid = MUST(fork());
	if (pid == 0) {
		bool good = count_wrong(slot) == 0;
		write_pages(slot, from, n);
		usleep(300);
		_exit(good ? 0 : 1);
	}
	write_pages(slot, from, n / 2);
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	wrong += status != 0;
}

/* The heap's end comes and goes; what lies below it stays. */
static void grow_heap(struct slot *slot, size_t from, size_t n)
{
	(void)from;
	(void)slot;
	char *end = MUST(sbrk((intptr_t)(n * PAGE)));
	memset(end, 0x55, n * PAGE);
	wrong += end[n * PAGE - 1] != 0x55;
	MUST(sbrk(-(intptr_t)(n * PAGE)));
}

static void *work(void *arg)
{
	static void (*const kinds[])(struct slot *, size_t, size_t) = {
		rewrite, rewrite, give_back, map_anew, move, protect, guard, multiply, grow_heap,
	};
	for (;;) {
		struct slot *slot = &slots[random_below(SLOTS)];
		size_t from = random_below(SLOT_PAGES - 1), n = 1 + random_below(SLOT_PAGES - from);
		wrong += count_wrong(slot);
		kinds[random_below(sizeof(kinds) / sizeof(kinds[0]))](slot, from, n);
		wrong += count_wrong(slot);
		worker_changed(&worker);
	}
	return arg;
}

static void set_up(void)
{
	char *path = specimen_path("file");
	FILE *file = fopen(path, "w+e");
	MUST(ftruncate(fileno(file), SLOT_PAGES * PAGE));
	slots = (struct slot *)anonymous(SLOTS * sizeof(*slots) / PAGE + 1, PROT_READ | PROT_WRITE);
	heap = MUST(sbrk(0));
	MUST(brk((void *)(((uintptr_t)heap + PAGE - 1) / PAGE * PAGE + SLOT_PAGES * PAGE)));
	for (int i = 0; i < SLOTS; i++) {
		slots[i].at = empty_place(SLOT_PAGES * PAGE, 2 * MIB);
		if (i == HEAP_SLOT)
			slots[i].at = (char *)(((uintptr_t)heap + PAGE - 1) / PAGE * PAGE);
		else if (i == FILE_SLOT)
			MUST(mmap(slots[i].at, SLOT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fileno(file), 0));
		else if (i == SHARED_SLOT)
			MUST(mmap(slots[i].at, SLOT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		else
			map_there(slots[i].at, SLOT_PAGES * PAGE, MAP_FIXED);
		if (i == HUGE_SLOT)
			madvise(slots[i].at, SLOT_PAGES * PAGE, MADV_HUGEPAGE);
		write_pages(&slots[i], 0, SLOT_PAGES * (i % 2 ? 1 : 3) / (i % 2 ? 1 : 4));
	}
	fclose(file);
}

int main(void)
{
	set_up();
	worker_start(work);
	while (worker_round(&worker, 20)) {
		expect_int("pages found wrong on the way", 0, (long long)wrong);
		for (int i = 0; i < SLOTS; i++) {
			char what[64];
			snprintf(what, sizeof(what), "slot %d: pages that are not what they should be", i);
			expect_int(what, 0, (long long)count_wrong(&slots[i]));
		}
	}
	return specimen_end();
}
