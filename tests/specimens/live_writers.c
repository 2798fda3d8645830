/*
 * Memory that is written all the time, by threads of two processes: what is in the image is the state of
 * one instant.  Each page tells by its content which step wrote it; each writer knows which that should be, knows
 * a sum over all of its pages, has told its progress to everybody in shared memory, and has seen its
 * neighbour's.  A page that is older or newer than the rest, or a writer that is, is found out.
 *
 * harness: restless live
 */
#include "../specimen_memory.h"

enum { WRITERS = 5, IN_CHILD = 2, PAGES = 1500, BURST = 48, WORDS = PAGE / 8 };

/* In shared memory. */
static struct common {
	_Atomic uint64_t done[WRITERS]; /* steps, told when they are complete */
	_Atomic int halt, halted;
	_Atomic uint64_t wrong[WRITERS]; /* pages found wrong while it ran */
} *common;

/* All of it private memory. */
static struct writer {
	int number;
	uint64_t (*pages)[WORDS];
	uint64_t *last;	  /* which step wrote each page */
	uint64_t *journal; /* a page of its own: JOURNAL_* */
} writers[WRITERS];

enum { JOURNAL_BEGUN, JOURNAL_DONE, JOURNAL_SUM, JOURNAL_SEEN };

static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15ull ^ (b + 0x632be59bd9b4e019ull);
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 32;
}

static bool holds(const uint64_t *page, uint64_t number, uint64_t step)
{
	uint64_t first = mix(number, step), wrong = 0;
	for (int i = 0; i < WORDS; i++)
		wrong |= page[i] ^ (first + (uint64_t)i);
	return !wrong;
}

static void fill(volatile uint64_t *page, uint64_t number, uint64_t step)
{
	uint64_t first = mix(number, step);
	for (int i = 0; i < WORDS; i++)
		page[i] = first + (uint64_t)i;
}

static void step(struct writer *w)
{
	volatile uint64_t *journal = w->journal;
	uint64_t now = journal[JOURNAL_DONE] + 1, page = mix((uint64_t)w->number, now) % PAGES;
	/* A neighbour that has told of a step has done it. */
	journal[JOURNAL_SEEN] = common->done[(w->number + 1) % WRITERS];
	if (!holds(w->pages[page], page, w->last[page]))
		common->wrong[w->number]++;
	journal[JOURNAL_BEGUN] = now;
	fill(w->pages[page], page, now);
	journal[JOURNAL_SUM] ^= mix(page, w->last[page]) ^ mix(page, now);
	w->last[page] = now;
	journal[JOURNAL_DONE] = now;
	common->done[w->number] = now;
}

static void *work(void *arg)
{
	struct writer *w = arg;
	for (;;) {
		for (int i = 0; i < BURST; i++)
			step(w);
		usleep(400);
		if (!common->halt)
			continue;
		common->halted++;
		while (common->halt)
			usleep(500);
	}
	return NULL;
}

static void start(int number)
{
	struct writer *w = &writers[number];
	w->number = number;
	w->pages = (void *)anonymous(PAGES, PROT_READ | PROT_WRITE);
	w->last = (void *)anonymous(1 + PAGES * 8 / PAGE, PROT_READ | PROT_WRITE);
	w->journal = (void *)anonymous(1, PROT_READ | PROT_WRITE);
	for (uint64_t i = 0; i < PAGES; i++) {
		fill(w->pages[i], i, 0);
		w->journal[JOURNAL_SUM] ^= mix(i, 0);
	}
	pthread_t thread;
	MUST_ZERO(pthread_create(&thread, NULL, work, w));
}

static void check(const struct writer *w)
{
	char what[64];
	uint64_t sum = 0;
	int wrong = 0;
	for (uint64_t i = 0; i < PAGES; i++) {
		wrong += !holds(w->pages[i], i, w->last[i]);
		sum ^= mix(i, w->last[i]);
	}
	snprintf(what, sizeof(what), "writer %d: pages that are not what was written last", w->number);
	expect_int(what, 0, wrong);
	snprintf(what, sizeof(what), "writer %d: pages found wrong on the way", w->number);
	expect_int(what, 0, (long long)common->wrong[w->number]);
	snprintf(what, sizeof(what), "writer %d: the sum of what was written", w->number);
	expect_hex(what, sum, w->journal[JOURNAL_SUM]);
	snprintf(what, sizeof(what), "writer %d: steps it has told of", w->number);
	expect_int(what, (long long)w->journal[JOURNAL_DONE], (long long)common->done[w->number]);
	snprintf(what, sizeof(what), "writer %d: the neighbour is not behind what was seen of it", w->number);
	expect_int(what, 1, common->done[(w->number + 1) % WRITERS] >= w->journal[JOURNAL_SEEN]);
	snprintf(what, sizeof(what), "writer %d has written", w->number);
	expect_int(what, 1, w->journal[JOURNAL_DONE] > 0);
}

static void await_halt(void)
{
	while (common->halted < WRITERS)
		usleep(1000);
}

static int be_child(void)
{
	for (int i = 0; i < IN_CHILD; i++)
		start(i);
	while (specimen_child_round()) {
		await_halt();
		for (int i = 0; i < IN_CHILD; i++)
			check(&writers[i]);
	}
	return specimen_end();
}

int main(void)
{
	common = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	if (MUST(fork()) == 0)
		return be_child();
	for (int i = IN_CHILD; i < WRITERS; i++)
		start(i);
	while (specimen_round()) {
		common->halted = 0;
		common->halt = 0;
		sleep_ms(30);
		specimen_ready();
		common->halt = 1;
		await_halt();
		for (int i = IN_CHILD; i < WRITERS; i++)
			check(&writers[i]);
		specimen_await(1);
	}
	return specimen_end();
}
