/*
 * specimen_worker.h - a thread that changes things without pause, and stands still between two changes while its specimen
 * looks at what has become of them.
 */
#ifndef TESTS_SPECIMEN_WORKER_H
#define TESTS_SPECIMEN_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "specimen.h"

struct worker {
	_Atomic uint64_t changes;
	_Atomic bool halt, halted;
};

/* The thread: a change is made. */
static inline void worker_changed(struct worker *worker)
{
	worker->changes++;
	if (!worker->halt)
		return;
	worker->halted = true;
	while (worker->halt)
		usleep(500);
}

/* The others: it goes on; so many changes later. */
static inline void worker_go_on(struct worker *worker, uint64_t changes)
{
	uint64_t end = worker->changes + changes;
	worker->halted = false;
	worker->halt = false;
	while (worker->changes < end)
		usleep(500);
}

static inline void worker_halt(struct worker *worker)
{
	worker->halt = true;
	while (!worker->halted)
		usleep(500);
}

static inline void worker_start(void *(*change)(void *))
{
	pthread_t thread;
	setvbuf(stdout, NULL, _IONBF, 0);
	MUST_ZERO(pthread_create(&thread, NULL, change, NULL));
}

/* As specimen_round() and specimen_ready() behind so many changes. It is dumped while the thread goes on, which then stands
 * still. */
static inline bool worker_round(struct worker *worker, uint64_t changes)
{
	if (!specimen_round())
		return false;
	worker_go_on(worker, changes);
	specimen_ready();
	worker_halt(worker);
	return true;
}

#endif
