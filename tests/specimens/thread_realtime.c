/*
 * Real-time threads: FIFO, round robin and deadline with their parameters, in a
 * process whose niceness is not that of whoever restores it; the flag that children
 * do not inherit the policy (a child made later does not), I/O priority of the
 * real-time class, a slice of another length (EEVDF).  Niceness shows again when a
 * thread is real-time no more.
 * harness: root
 */
#include "specimen.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { FIFO, RR, DEADLINE, SLICE, IDLE, KINDS };
enum { IOPRIO_WHO_PROCESS = 1, IOPRIO_REALTIME = 1 << 13, NICE = 4, POLICY_DEADLINE = 6 };
enum { RESET_ON_FORK = 1, RECLAIM = 2 };

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static const struct attr wanted[KINDS] = {
	[FIFO] = { .policy = SCHED_FIFO, .priority = 7, .flags = RESET_ON_FORK },
	[RR] = { .policy = SCHED_RR, .priority = 3 },
	[DEADLINE] = { .policy = POLICY_DEADLINE, .flags = RECLAIM, .runtime = 2000000,
		       .deadline = 40000000, .period = 50000000 },
	[SLICE] = { .policy = SCHED_OTHER, .nice = NICE, .runtime = 3100000, .flags = RESET_ON_FORK },
	[IDLE] = { .policy = SCHED_IDLE },
};

static volatile int number, through[KINDS];
static uint64_t slice;

static void get(struct attr *attr)
{
	MUST(syscall(SYS_sched_getattr, 0, attr, sizeof(*attr), 0));
}

static void set(struct attr attr)
{
	attr.size = sizeof(attr);
	MUST(syscall(SYS_sched_setattr, 0, &attr, 0));
}

static void check_child(int policy)
{
	pid_t pid = MUST(fork());
	if (pid == 0)
		_exit(sched_getscheduler(0));
	int status = -1;
	MUST(waitpid(pid, &status, 0));
	expect_int("a child's policy", policy, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static void check(int kind)
{
	const struct attr *want = &wanted[kind];
	struct attr seen;
	get(&seen);
	expect_int("policy", want->policy, seen.policy);
	expect_hex("flags", want->flags, seen.flags);
	expect_int("priority", want->priority, seen.priority);
	expect_int("niceness", NICE, getpriority(PRIO_PROCESS, 0));
	if (kind == SLICE)
		expect_int("slice", (long long)slice, (long long)seen.runtime);
	if (kind == DEADLINE) {
		expect_int("run time", (long long)want->runtime, (long long)seen.runtime);
		expect_int("deadline", (long long)want->deadline, (long long)seen.deadline);
		expect_int("period", (long long)want->period, (long long)seen.period);
	} else {
		expect_int("I/O priority", IOPRIO_REALTIME | kind,
			   syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0));
		check_child(want->flags & RESET_ON_FORK ? SCHED_OTHER : (int)want->policy);
	}
}

static void *live(void *arg)
{
	int kind = (int)(intptr_t)arg;
	struct attr attr = wanted[kind];
	MUST(setpriority(PRIO_PROCESS, 0, NICE));
	MUST(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_REALTIME | kind));
	set(attr);
	if (kind == SLICE) {
		get(&attr);
		slice = attr.runtime; /* kernels before 6.12 have none */
	}
	for (int mine = 1;; mine++) {
		through[kind] = mine;
		while (number < mine)
			sleep_ms(1);
		check(kind);
	}
	return NULL;
}

int main(void)
{
	struct attr trial = { .size = sizeof(trial), .policy = SCHED_RR, .priority = 1 }, plain;
	get(&plain);
	if (syscall(SYS_sched_setattr, 0, &trial, 0) < 0)
		specimen_skip("no real-time scheduling here: %s", strerror(errno));
	cpu_set_t may;
	MUST(sched_getaffinity(0, sizeof(may), &may));
	if (CPU_COUNT(&may) < sysconf(_SC_NPROCESSORS_ONLN))
		specimen_skip("deadline threads may run on all processors, or are none (sched(7)); here are %d",
			      CPU_COUNT(&may));
	plain.size = sizeof(plain);
	plain.runtime = 0;
	MUST(syscall(SYS_sched_setattr, 0, &plain, 0));
	for (int i = 0; i < KINDS; i++) {
		pthread_t thread;
		MUST_ZERO(pthread_create(&thread, NULL, live, (void *)(intptr_t)i));
	}
	while (specimen_round()) {
		for (int i = 0; i < KINDS; i++)
			while (through[i] < specimen_number())
				sleep_ms(1);
		specimen_ready();
		number = specimen_number();
		for (int i = 0; i < KINDS; i++)
			while (through[i] <= number)
				sleep_ms(1);
	}
	return specimen_end();
}
