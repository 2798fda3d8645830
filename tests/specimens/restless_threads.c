/*
 * A program that starts and joins threads all the time, while others compute
 * and write to memory: its sums are right whenever it is dumped.
 *
 * harness: restless
 */
#include "specimen.h"

enum { WORKERS = 3, LENGTH = 4096 };

static volatile int stop;

static void *watch(void *arg)
{
	specimen_ready();
	stop = 1;
	return arg;
}

/* Moves units between cells: the sum stays, unless a page is from another moment. */
static void *shift(void *arg)
{
	uint64_t *cells = arg;
	uint64_t at = 1;
	while (!stop) {
		at = at * 6364136223846793005u + 1442695040888963407u;
		uint64_t from = (at >> 33) % LENGTH, to = (at >> 20) % LENGTH;
		cells[from]--;
		cells[to]++;
	}
	return NULL;
}

static void *add(void *arg)
{
	*(int *)arg += 1;
	return arg;
}

int main(void)
{
	static uint64_t cells[WORKERS][LENGTH];
	while (specimen_round()) {
		stop = 0;
		pthread_t watcher, workers[WORKERS];
		MUST_ZERO(pthread_create(&watcher, NULL, watch, NULL));
		for (int i = 0; i < WORKERS; i++) {
			for (int j = 0; j < LENGTH; j++)
				cells[i][j] = 1000;
			MUST_ZERO(pthread_create(&workers[i], NULL, shift, cells[i]));
		}
		int started = 0, counted = 0;
		while (!stop) {
			pthread_t one;
			MUST_ZERO(pthread_create(&one, NULL, add, &counted));
			MUST_ZERO(pthread_join(one, NULL));
			started++;
		}
		MUST_ZERO(pthread_join(watcher, NULL));
		expect_int("threads that did their work", started, counted);
		for (int i = 0; i < WORKERS; i++) {
			MUST_ZERO(pthread_join(workers[i], NULL));
			uint64_t sum = 0;
			for (int j = 0; j < LENGTH; j++)
				sum += cells[i][j];
			expect_int("sum of a worker's cells", 1000LL * LENGTH, (long long)sum);
		}
	}
	return specimen_end();
}
