/*
 * laps.h - how long each part of a story takes.
 */
#ifndef ENGINE_LAPS_H
#define ENGINE_LAPS_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Microseconds since *mark (CLOCK_MONOTONIC, ns), which moves to now. */
static inline uint64_t lap(uint64_t *mark)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), was = *mark;
	*mark = now;
	return (now - was) / 1000;
}

#endif
