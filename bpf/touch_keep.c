/*
 * touch_keep.c - what a watch may cost. While programs are on the tracepoints of reads and faults, a program that
 * reads 4 KiB at a time from the page cache is slowed by a tenth, whatever the programs do. So they are there only
 * as long as there is little to see; when a CPU has spent its budget (touch_shape.h), they are taken off for a
 * while, and nothing at all is left of them in the way of a read. For how long is a matter of chance: who reads
 * at regular intervals would else be seen always or never.
 */
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <time.h>

#include "bpf/touch.h"

#define AWAY_LEAST_MS 150
#define AWAY_MOST_MS 450
#define ENDS 7

struct keeping {
	struct touch_watch *watch;
	struct ring_buffer *ring;
	struct pollfd fds[ENDS + 1]; /* the ends, then the one of spent budgets */
	size_t n;		     /* ends */
	unsigned seed;
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int swallow(void *unused, void *data, size_t size)
{
	(void)unused, (void)data, (void)size;
	return 0;
}

/* Which end is ready, n: a budget is spent, n + 1: neither, until then. */
static size_t wait_until(struct keeping *keeping, int64_t end_ms)
{
	int64_t left = end_ms < 0 ? -1 : end_ms - now_ms();
	if (end_ms >= 0 && left < 0)
		left = 0;
	if (poll(keeping->fds, keeping->n + 1, (int)left) > 0)
		for (size_t i = 0; i <= keeping->n; i++)
			if (keeping->fds[i].revents)
				return i;
	return keeping->n + 1;
}

/* To put a program onto its tracepoint and take it off again costs every CPU some 0.1 ms: those of faults are left
 * where they are as long as it is reads that are too many. */
static size_t look_away(struct keeping *keeping)
{
	int64_t end = now_ms() + AWAY_LEAST_MS + rand_r(&keeping->seed) % (AWAY_MOST_MS - AWAY_LEAST_MS);
	enum touch_look look = TOUCH_FAULTS;
	size_t ready;
	do {
		touch_watch_look(keeping->watch, look, NULL);
		ring_buffer__consume(keeping->ring);
		look = TOUCH_NOTHING;
		ready = wait_until(keeping, end);
	} while (ready == keeping->n || (ready > keeping->n && now_ms() < end));
	return ready;
}

static int keep(struct keeping *keeping)
{
	for (;;) {
		size_t ready = wait_until(keeping, -1);
		if (ready == keeping->n)
			ready = look_away(keeping);
		if (ready < keeping->n)
			return (int)ready;
		if (touch_watch_look(keeping->watch, TOUCH_ALL, NULL) < 0)
			return -1;
	}
}

int touch_watch_keep(struct touch_watch *watch, struct pollfd *ends, size_t n)
{
	struct keeping keeping = { .watch = watch, .n = n, .seed = (unsigned)time(NULL) };
	if (n > ENDS)
		return -1;
	for (size_t i = 0; i < n; i++)
		keeping.fds[i] = ends[i];
	keeping.fds[n] = (struct pollfd){ .fd = touch_watch_spent(watch), .events = POLLIN };
	keeping.ring = ring_buffer__new(touch_watch_spent(watch), swallow, NULL, NULL);
	int result = keeping.ring ? keep(&keeping) : -1;
	ring_buffer__free(keeping.ring);
	return result;
}
