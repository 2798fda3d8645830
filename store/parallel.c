#define _GNU_SOURCE
#include "store/parallel.h"

#include <sched.h>

#include "store/thread.h"

#define THREADS_MAX 16

struct share {
	void (*fn)(void *arg, uint64_t first, uint64_t n);
	void *arg;
	uint64_t first;
	uint64_t n;
	pthread_t thread;
	bool started;
};

static void *run_share(void *arg)
{
	struct share *share = arg;
	share->fn(share->arg, share->first, share->n);
	return NULL;
}

static unsigned usable_cores(void)
{
	cpu_set_t set;
	int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
	return count < 1 ? 1 : count > THREADS_MAX ? THREADS_MAX : (unsigned)count;
}

void parallel_for(uint64_t total, uint64_t grain,
		  void (*fn)(void *arg, uint64_t first, uint64_t n), void *arg)
{
	uint64_t threads = total / grain < 2 ? 1 : usable_cores();
	if (threads > total / grain)
		threads = total / grain ? total / grain : 1;

	struct share shares[THREADS_MAX];
	uint64_t first = 0;
	for (uint64_t i = 0; i < threads; i++) {
		uint64_t n = (total - first) / (threads - i);
		shares[i] = (struct share){.fn = fn, .arg = arg, .first = first, .n = n};
		first += n;
		if (i + 1 < threads)
			shares[i].started = thread_start(&shares[i].thread, run_share, &shares[i]);
	}
	run_share(&shares[threads - 1]);
	for (uint64_t i = 0; i + 1 < threads; i++) {
		if (shares[i].started)
			pthread_join(shares[i].thread, NULL);
		else
			run_share(&shares[i]);
	}
}
