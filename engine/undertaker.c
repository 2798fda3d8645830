#include "engine/undertaker.h"

#include <errno.h>
#include <time.h>

#include "engine/trace.h"
#include "store/thread.h"

#define LOOK_MS 5 /* far longer than a thread takes to be seized */

static bool is_enough(struct undertaker *undertaker)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LOOK_MS * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return sem_clockwait(&undertaker->enough, CLOCK_MONOTONIC, &until) == 0;
}

static void *look_around(void *arg)
{
	struct undertaker *undertaker = arg;
	while (!is_enough(undertaker)) {
		pthread_mutex_lock(&undertaker->lock);
		for (size_t i = 1; undertaker->tids && i < undertaker->n; i++)
			trace_bury(undertaker->tids[i]);
		pthread_mutex_unlock(&undertaker->lock);
	}
	return NULL;
}

static void forget(struct undertaker *undertaker)
{
	sem_destroy(&undertaker->enough);
	pthread_mutex_destroy(&undertaker->lock);
}

void undertaker_begin(struct undertaker *undertaker)
{
	if (undertaker->begun)
		return;
	pthread_mutex_init(&undertaker->lock, NULL);
	sem_init(&undertaker->enough, 0, 0);
	undertaker->begun = thread_start(&undertaker->thread, look_around, undertaker);
	if (!undertaker->begun)
		forget(undertaker);
}

void undertaker_leave(struct undertaker *undertaker)
{
	if (undertaker->begun)
		sem_post(&undertaker->enough);
}

void undertaker_end(struct undertaker *undertaker)
{
	if (!undertaker->begun)
		return;
	undertaker_leave(undertaker);
	pthread_join(undertaker->thread, NULL);
	forget(undertaker);
	undertaker->begun = false;
}

static void show(struct undertaker *undertaker, const pid_t *tids, size_t n)
{
	if (!undertaker->begun)
		return;
	pthread_mutex_lock(&undertaker->lock);
	undertaker->tids = tids;
	undertaker->n = n;
	pthread_mutex_unlock(&undertaker->lock);
}

int undertaker_watch(struct undertaker *undertaker, const pid_t *tids, size_t n, struct fsnap_error *err)
{
	if (n <= UNDERTAKER_FEW)
		return 0;
	undertaker_begin(undertaker);
	if (!undertaker->begun)
		return fail(err, FSNAP_E_NOMEM, EAGAIN, "a thread beside the one that seizes %zu others", n);
	show(undertaker, tids, n);
	return 0;
}

void undertaker_look_away(struct undertaker *undertaker)
{
	show(undertaker, NULL, 0);
}
