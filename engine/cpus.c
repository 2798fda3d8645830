/*
 * cpus.c - threads that were bound to CPUs which this machine, or our cpuset, does not have.
 *
 * sched_setaffinity(2) drops those silently as long as one is left, and fails if none is.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/restore.h"

#define STACK (64 * 1024)

/* Whoever asks for all CPUs gets those there are. A child of ours asks, so that we are not bound afterwards. */
static int ask_for_all(void *arg)
{
	cpu_set_t *here = arg;
	memset(here, 0xff, sizeof(*here));
	_exit(sched_setaffinity(0, sizeof(*here), here) < 0 || sched_getaffinity(0, sizeof(*here), here) < 0);
}

static bool find_cpus(cpu_set_t *here)
{
	char *stack = malloc(STACK);
	int status = -1;
	pid_t child = stack ? clone(ask_for_all, stack + STACK, CLONE_VM | CLONE_VFORK, here) : -1;
	if (child > 0)
		waitpid(child, &status, __WALL);
	free(stack);
	return status == 0;
}

static void fit(struct restore *restore, image_thread *thread, const cpu_set_t *here)
{
	image_sched *sched = &thread->sched;
	unsigned wanted = 0, left = 0;
	for (u_int i = 0; i < sched->affinity.affinity_len; i++) {
		unsigned mask = (unsigned char)sched->affinity.affinity_val[i];
		unsigned also = i < sizeof(*here) ? ((const unsigned char *)here)[i] : 0;
		wanted += (unsigned)__builtin_popcount(mask);
		left += (unsigned)__builtin_popcount(mask & also);
	}
	if (left == wanted)
		return;
	restore_note(restore, "thread %d (%s) may run on %s it was bound to: %u of %u are not here", thread->tid,
		     thread->comm, left ? "fewer CPUs than" : "any CPU, not only those", wanted - left, wanted);
	if (!left)
		sched->affinity.affinity_len = 0;
}

void fit_affinities(struct restore *restore)
{
	cpu_set_t here;
	bool known = false;
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		image_process *process = &restore->model.processes[i];
		for (u_int j = 0; j < process->threads.threads_len; j++) {
			image_thread *thread = &process->threads.threads_val[j];
			if (!thread->sched.affinity.affinity_len)
				continue;
			if (!known && !find_cpus(&here))
				return;
			known = true;
			fit(restore, thread, &here);
		}
	}
}
