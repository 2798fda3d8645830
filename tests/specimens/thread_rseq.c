/*
 * Restartable sequences stay registered in every thread: the kernel goes on
 * writing the current CPU into the area, also when the thread moves.
 */
#include "specimen.h"

#include <sched.h>
#include <semaphore.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

enum { THREADS = 3 };

static sem_t start[THREADS], through;
static int cpus[2];

static struct rseq *area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static void check(void)
{
	for (int i = 0; i < 2; i++) {
		cpu_set_t one;
		CPU_ZERO(&one);
		CPU_SET(cpus[i], &one);
		MUST(sched_setaffinity(0, sizeof(one), &one));
		expect_int("CPU in the rseq area", cpus[i],
			   (int)*(volatile unsigned *)&area()->cpu_id);
	}
	/* A second registration of the same area is EBUSY, of an unregistered thread a success. */
	expect_errno("registering again", EBUSY,
		     syscall(SYS_rseq, area(), __rseq_size < 32 ? 32 : __rseq_size, 0, RSEQ_SIG));
}

static void *live(void *arg)
{
	int index = (int)(intptr_t)arg;
	for (;;) {
		sem_post(&through);
		while (sem_wait(&start[index]) < 0)
			;
		check();
	}
	return NULL;
}

int main(void)
{
	if (__rseq_size == 0)
		specimen_skip("this libc has not registered rseq");
	cpu_set_t allowed;
	MUST(sched_getaffinity(0, sizeof(allowed), &allowed));
	for (int cpu = 0, n = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
		if (CPU_ISSET(cpu, &allowed))
			cpus[n++] = cpu;
	sem_init(&through, 0, 0);
	for (int i = 0; i < THREADS; i++) {
		sem_init(&start[i], 0, 0);
		pthread_t thread;
		MUST_ZERO(pthread_create(&thread, NULL, live, (void *)(intptr_t)i));
	}
	while (specimen_round()) {
		for (int i = 0; i < THREADS; i++)
			while (sem_wait(&through) < 0)
				;
		specimen_ready();
		check();
		for (int i = 0; i < THREADS; i++)
			sem_post(&start[i]);
		for (int i = 0; i < THREADS; i++)
			while (sem_wait(&through) < 0)
				;
		for (int i = 0; i < THREADS; i++)
			sem_post(&through);
	}
	return specimen_end();
}
