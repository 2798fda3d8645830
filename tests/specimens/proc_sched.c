/*
 * Scheduling, per thread: niceness, policy, CPU affinity, I/O priority and
 * timer slack; with root, also a real-time priority.
 */
#include "specimen.h"

#include <sched.h>
#include <semaphore.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { THREADS = 4, IOPRIO_WHO_PROCESS = 1, IOPRIO_BEST_EFFORT = 2 << 13 };

static sem_t start[THREADS], through;

struct own {
	int policy, priority, nice, io, slack, cpu;
};

static void set(struct own *own)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(own->cpu, &one);
	MUST(sched_setaffinity(0, sizeof(one), &one));
	MUST(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, own->io));
	MUST(prctl(PR_SET_TIMERSLACK, own->slack));
	MUST(setpriority(PRIO_PROCESS, 0, own->nice));
	struct sched_param param = { .sched_priority = own->priority };
	MUST(sched_setscheduler(0, own->policy, &param));
	own->slack = prctl(PR_GET_TIMERSLACK); /* a real-time thread's is 0 whatever was set */
}

static void check(const struct own *own)
{
	cpu_set_t seen;
	MUST(sched_getaffinity(0, sizeof(seen), &seen));
	expect_int("CPUs allowed", 1, CPU_COUNT(&seen));
	expect_int("the one CPU", 1, CPU_ISSET(own->cpu, &seen) != 0);
	expect_int("on that CPU", own->cpu, sched_getcpu());
	expect_int("I/O priority", own->io, syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0));
	expect_int("timer slack", own->slack, prctl(PR_GET_TIMERSLACK));
	errno = 0;
	expect_int("niceness", own->nice, getpriority(PRIO_PROCESS, 0));
	expect_int("policy", own->policy, sched_getscheduler(0));
	struct sched_param param;
	MUST(sched_getparam(0, &param));
	expect_int("real-time priority", own->priority, param.sched_priority);
}

/* Niceness counts from that of the test run. Real-time threads have one, too. */
static struct own owns[THREADS] = {
	{ SCHED_OTHER, 0, 3, IOPRIO_BEST_EFFORT | 5, 60000, 0 },
	{ SCHED_BATCH, 0, 7, IOPRIO_BEST_EFFORT | 6, 70000, 0 },
	{ SCHED_IDLE, 0, 0, IOPRIO_BEST_EFFORT | 7, 80000, 0 },
	{ SCHED_OTHER, 0, 19, IOPRIO_BEST_EFFORT | 2, 90000, 0 },
};

static void *live(void *arg)
{
	int index = (int)(intptr_t)arg;
	set(&owns[index]);
	for (;;) {
		sem_post(&through);
		while (sem_wait(&start[index]) < 0)
			;
		check(&owns[index]);
	}
	return NULL;
}

int main(void)
{
	cpu_set_t allowed;
	MUST(sched_getaffinity(0, sizeof(allowed), &allowed));
	int last = 0;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed))
			last = cpu;
	int nice = getpriority(PRIO_PROCESS, 0);
	for (int i = 0; i < THREADS; i++)
		owns[i].nice = owns[i].nice + nice > 19 ? 19 : owns[i].nice + nice;
	owns[1].cpu = owns[3].cpu = last;
	if (geteuid() == 0)
		owns[3] = (struct own){ SCHED_RR, 5, nice, IOPRIO_BEST_EFFORT | 2, 50000, last };
	sem_init(&through, 0, 0);
	for (int i = 0; i < THREADS; i++) {
		sem_init(&start[i], 0, 0);
		pthread_t thread;
		MUST_ZERO(pthread_create(&thread, NULL, live, (void *)(intptr_t)i));
	}
	for (int i = 0; i < THREADS; i++)
		while (sem_wait(&through) < 0)
			;
	while (specimen_round()) {
		specimen_ready();
		for (int i = 0; i < THREADS; i++)
			sem_post(&start[i]);
		for (int i = 0; i < THREADS; i++)
			while (sem_wait(&through) < 0)
				;
	}
	return specimen_end();
}
