#include "engine/teller.h"

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

struct teller {
	struct dump *dump;
	pthread_t thread;
	sem_t ready, go;
	sem_t told;  /* posted once for each process that has memory */
	bool enough; /* nobody wants the rest */
};

/* What cannot be read here fails again where it is wanted, and is told there. */
static size_t hear(struct process *process)
{
	size_t bytes = 0;
	process->heard[HEARD_STATUS] = told_read(process, TOLD_STATUS, NULL);
	process->heard[HEARD_MAPS] = procfs_read(process->proc, "maps", NULL, NULL);
	for (enum heard what = 0; what < N_HEARD; what++)
		bytes += process->heard[what] ? strlen(process->heard[what]) : 0;
	return bytes;
}

static void *tell(void *arg)
{
	struct teller *teller = arg;
	const struct tree *tree = &teller->dump->tree;
	size_t bytes = 0;
	ahead_heap(teller->dump->known.n_processes * HEAP_PER_PROCESS);
	sem_post(&teller->ready);
	thread_await(&teller->go);
	for (size_t i = 0; i < tree->n_processes; i++) {
		if (__atomic_load_n(&teller->enough, __ATOMIC_ACQUIRE))
			break;
		if (tree->processes[i]->image.zombie)
			continue;
		bytes += bytes < MOST ? hear(tree->processes[i]) : 0;
		sem_post(&teller->told);
	}
	return NULL;
}

static void forget(struct teller *teller)
{
	sem_destroy(&teller->ready);
	sem_destroy(&teller->go);
	sem_destroy(&teller->told);
	free(teller);
}

/* A watch works beside those who want the processors. */
static bool is_worth_it(const struct dump *dump)
{
	return !(dump->chain && dump->chain->stays_open) && dump->known.n_processes + 1 >= MANY && copy_crew_size() > 1;
}

void teller_begin(struct dump *dump)
{
	struct teller *teller = is_worth_it(dump) ? calloc(1, sizeof(*teller)) : NULL;
	if (!teller)
		return;
	teller->dump = dump;
	sem_init(&teller->ready, 0, 0);
	sem_init(&teller->go, 0, 0);
	sem_init(&teller->told, 0, 0);
	if (!thread_start(&teller->thread, tell, teller)) {
		forget(teller);
		return;
	}
	thread_await(&teller->ready);
	dump->teller = teller;
}

void teller_go(struct dump *dump)
{
	if (dump->teller)
		sem_post(&dump->teller->go);
}

void teller_await(struct dump *dump, struct process *process)
{
	if (!dump->teller)
		return;
	thread_await(&dump->teller->told);
	process->was_heard = true;
}

void teller_stop(struct dump *dump)
{
	struct teller *teller = dump->teller;
	if (!teller)
		return;
	dump->teller = NULL;
	__atomic_store_n(&teller->enough, true, __ATOMIC_RELEASE);
	sem_post(&teller->go);
	pthread_join(teller->thread, NULL);
	forget(teller);
}

char *teller_take(struct process *process, enum heard what)
{
	char *text = process->was_heard ? process->heard[what] : NULL;
	if (text)
		process->heard[what] = NULL;
	return text;
}
