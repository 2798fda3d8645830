#include "engine/early.h"

#include <stdlib.h>
#include <string.h>

#include "engine/ahead.h"
#include "engine/chain/chain.h"
#include "engine/copy.h"
#include "engine/procfs.h"
#include "engine/told.h"
#include "store/thread.h"

#define MANY 8		  /* processes: to make the thread costs what it spares with two */
#define MOST (16ul << 20) /* bytes that it reads: nobody needs them before their turn comes */
#define HEAP_PER_PROCESS (16ul << 10)

struct early {
	struct dump *dump;
	pthread_t thread;
	sem_t ready, go;
	sem_t read;  /* posted once for each process that has memory */
	bool enough; /* nobody wants the rest */
};

/* What cannot be read here fails again where it is wanted, and is told there. */
static size_t read_one(struct process *process)
{
	size_t bytes = 0;
	process->early[EARLY_STATUS] = told_read(process, TOLD_STATUS, NULL);
	process->early[EARLY_MAPS] = procfs_read(process->proc, "maps", NULL, NULL);
	for (enum early_text what = 0; what < N_EARLY; what++)
		bytes += process->early[what] ? strlen(process->early[what]) : 0;
	return bytes;
}

static void *read_all(void *arg)
{
	struct early *early = arg;
	const struct tree *tree = &early->dump->tree;
	size_t bytes = 0;
	ahead_heap(early->dump->known.n_processes * HEAP_PER_PROCESS);
	sem_post(&early->ready);
	thread_await(&early->go);
	for (size_t i = 0; i < tree->n_processes; i++) {
		if (__atomic_load_n(&early->enough, __ATOMIC_ACQUIRE))
			break;
		if (tree->processes[i]->image.zombie)
			continue;
		bytes += bytes < MOST ? read_one(tree->processes[i]) : 0;
		sem_post(&early->read);
	}
	return NULL;
}

static void forget(struct early *early)
{
	sem_destroy(&early->ready);
	sem_destroy(&early->go);
	sem_destroy(&early->read);
	free(early);
}

/* A watch works beside those who want the processors. */
static bool is_worth_it(const struct dump *dump)
{
	return !(dump->chain && dump->chain->stays_open) && dump->known.n_processes + 1 >= MANY && copy_crew_size() > 1;
}

void early_begin(struct dump *dump)
{
	struct early *early = is_worth_it(dump) ? calloc(1, sizeof(*early)) : NULL;
	if (!early)
		return;
	early->dump = dump;
	sem_init(&early->ready, 0, 0);
	sem_init(&early->go, 0, 0);
	sem_init(&early->read, 0, 0);
	if (!thread_start(&early->thread, read_all, early)) {
		forget(early);
		return;
	}
	thread_await(&early->ready);
	dump->early = early;
}

void early_go(struct dump *dump)
{
	if (dump->early)
		sem_post(&dump->early->go);
}

void early_await(struct dump *dump, struct process *process)
{
	if (!dump->early)
		return;
	thread_await(&dump->early->read);
	process->early_is_ours = true;
}

void early_stop(struct dump *dump)
{
	struct early *early = dump->early;
	if (!early)
		return;
	dump->early = NULL;
	__atomic_store_n(&early->enough, true, __ATOMIC_RELEASE);
	sem_post(&early->go);
	pthread_join(early->thread, NULL);
	forget(early);
}

char *early_take(struct process *process, enum early_text what)
{
	char *text = process->early_is_ours ? process->early[what] : NULL;
	if (text)
		process->early[what] = NULL;
	return text;
}
