/*
 * finder.c - the pages of a frozen tree are found by a thread of their own, process by process, while the others ask
 * about all else: what the kernel is asked for them needs no ptrace, and takes most of the freeze where little is to be
 * copied of much memory, or of many processes.
 *
 * What it fills is nobody else's until it is waited for: runs, jobs, places in the image; spans of huge, guarded, swapped
 * and protected pages. What it reads of a process is settled when that is handed over: its mappings.
 */
#include <stdlib.h>

#include "engine/ahead.h"
#include "engine/chain/chain.h"
#include "engine/copy.h"
#include "engine/dump.h"
#include "store/thread.h"

#define MANY 8		   /* processes */
#define MUCH (256ull << 20) /* bytes: a look at them takes several times as long as making a thread */

struct finder {
	struct dump *dump;
	pthread_t thread;
	size_t heap; /* bytes that it will take */
	sem_t ready;
	sem_t handed; /* posted once for each process, in the order of the tree, and once at the end */
	size_t n;     /* so many were */
	bool enough;  /* nobody wants the rest */
	int result;
	struct fsnap_error error;
};

/* The next one that has memory. */
static struct process *next(const struct tree *tree, size_t *at)
{
	while (tree->processes[*at]->image.zombie)
		++*at;
	return tree->processes[(*at)++];
}

static void *find(void *arg)
{
	struct finder *finder = arg;
	ahead_heap(finder->heap);
	sem_post(&finder->ready);
	for (size_t done = 0, at = 0; finder->result == 0; done++) {
		thread_await(&finder->handed);
		if (done == __atomic_load_n(&finder->n, __ATOMIC_ACQUIRE) ||
		    __atomic_load_n(&finder->enough, __ATOMIC_ACQUIRE))
			break;
		finder->result = pages_find(finder->dump, next(&finder->dump->tree, &at), &finder->error);
	}
	return NULL;
}

/* Lists of runs, jobs and spans, which are copied as they grow. */
static size_t heap_for(const struct process *process)
{
	enum { PER_PROCESS = 2 << 10, PER_CHANGE = 2 << 10 };
	return PER_PROCESS + (process->chained ? process->chained->n_changes * PER_CHANGE : 0);
}

static bool is_worth_it(const struct dump *dump)
{
	uint64_t bytes = dump->tree.processes[0]->dirty;
	/* A watch's would save half a millisecond of a server's 2.5, but takes processor time from the server for a thread in each
	 * image. */
	if (dump->chain && dump->chain->stays_open)
		return false;
	for (size_t i = 0; i < dump->known.n_processes; i++)
		bytes += dump->known.processes[i]->dirty;
	return (bytes >= MUCH || dump->known.n_processes + 1 >= MANY) && copy_crew_size() > 1;
}

void finder_begin(struct dump *dump)
{
	struct finder *finder = is_worth_it(dump) ? calloc(1, sizeof(*finder)) : NULL;
	if (!finder)
		return;
	finder->dump = dump;
	finder->heap = heap_for(dump->tree.processes[0]);
	for (size_t i = 0; i < dump->known.n_processes; i++)
		finder->heap += heap_for(dump->known.processes[i]);
	sem_init(&finder->ready, 0, 0);
	sem_init(&finder->handed, 0, 0);
	if (thread_start(&finder->thread, find, finder)) {
		thread_await(&finder->ready);
		dump->finder = finder;
		return;
	}
	sem_destroy(&finder->ready);
	sem_destroy(&finder->handed);
	free(finder);
}

void finder_take(struct dump *dump)
{
	if (!dump->finder)
		return;
	__atomic_add_fetch(&dump->finder->n, 1, __ATOMIC_RELEASE);
	sem_post(&dump->finder->handed);
}

int finder_end(struct dump *dump, struct fsnap_error *err)
{
	struct finder *finder = dump->finder;
	if (!finder)
		return 0;
	dump->finder = NULL;
	sem_post(&finder->handed);
	pthread_join(finder->thread, NULL);
	sem_destroy(&finder->ready);
	sem_destroy(&finder->handed);
	int result = finder->result;
	if (result < 0 && err && !error_is_set(err))
		*err = finder->error;
	free(finder);
	return result;
}

void finder_stop(struct dump *dump)
{
	if (dump->finder)
		__atomic_store_n(&dump->finder->enough, true, __ATOMIC_RELEASE);
	finder_end(dump, NULL);
}
