/*
 * Thirty-two threads, each with its own thread-local variable, name, signal
 * mask and alternate stack, all asleep on a condition: they wake, find their
 * own values and TIDs, and can be joined (the kernel clears their TID cell).
 *
 * harness: threads=33 musl
 */
#include "specimen.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { THREADS = 32 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int go_number, sleeping, checked;
static __thread uint64_t own[64] __attribute__((aligned(64)));
static __thread int own_int = 4711;

struct member {
	pthread_t thread;
	int index;
	pid_t tid;
	char *stack;
};

static void set_up(struct member *m)
{
	m->tid = (pid_t)syscall(SYS_gettid);
	pattern_fill(own, sizeof(own), (uint64_t)m->index);
	own_int += m->index;
	char name[16];
	snprintf(name, sizeof(name), "member %d", m->index);
	MUST(prctl(PR_SET_NAME, name));
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + m->index % 8);
	MUST_ZERO(pthread_sigmask(SIG_BLOCK, &mask, NULL));
	m->stack =
		MUST(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	stack_t alternate = { .ss_sp = m->stack,
			      .ss_size = 65536 - 4096 * (unsigned)(m->index % 3) };
	MUST(sigaltstack(&alternate, NULL));
}

static void check(const struct member *m)
{
	expect_int("thread ID", m->tid, syscall(SYS_gettid));
	expect_pattern("thread-local array", own, sizeof(own), (uint64_t)m->index);
	expect_int("thread-local variable", 4711 + m->index, own_int);
	expect_int("pthread_self", 1, pthread_equal(m->thread, pthread_self()) != 0);
	char name[16], expected[16];
	snprintf(expected, sizeof(expected), "member %d", m->index);
	MUST(prctl(PR_GET_NAME, name));
	expect_text("thread name", expected, name);
	sigset_t mask;
	MUST_ZERO(pthread_sigmask(SIG_BLOCK, NULL, &mask));
	for (int i = 0; i < 8; i++)
		expect_int("blocked signal", i == m->index % 8, sigismember(&mask, SIGRTMIN + i));
	stack_t alternate;
	MUST(sigaltstack(NULL, &alternate));
	expect_hex("alternate stack", (uintptr_t)m->stack, (uintptr_t)alternate.ss_sp);
	expect_int("its size", 65536 - 4096 * (m->index % 3), (long)alternate.ss_size);
}

static void *live(void *arg)
{
	struct member *m = arg;
	set_up(m);
	for (int number = 1; number <= 3; number++) {
		pthread_mutex_lock(&lock);
		sleeping++;
		while (go_number < number)
			pthread_cond_wait(&wake, &lock);
		bool end = go_number > 3;
		pthread_mutex_unlock(&lock);
		if (end)
			break;
		check(m);
		pthread_mutex_lock(&lock);
		checked++;
		pthread_mutex_unlock(&lock);
	}
	return m;
}

static void wait_count(const int *count, int wanted)
{
	for (int n = 0; n < wanted; sleep_ms(1)) {
		pthread_mutex_lock(&lock);
		n = *count;
		pthread_mutex_unlock(&lock);
	}
}

int main(void)
{
	static struct member members[THREADS];
	for (int i = 0; i < THREADS; i++) {
		members[i].index = i;
		pthread_attr_t small;
		pthread_attr_init(&small);
		MUST_ZERO(pthread_attr_setstacksize(&small, 131072));
		MUST_ZERO(pthread_create(&members[i].thread, &small, live, &members[i]));
	}
	int number = 0;
	while (specimen_round()) {
		wait_count(&sleeping, THREADS * ++number);
		specimen_ready();
		pthread_mutex_lock(&lock);
		go_number = number;
		pthread_cond_broadcast(&wake);
		pthread_mutex_unlock(&lock);
		wait_count(&checked, THREADS * number);
	}
	pthread_mutex_lock(&lock);
	go_number = 4;
	pthread_cond_broadcast(&wake);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < THREADS; i++) {
		void *seen = NULL;
		expect_int("joining", 0, pthread_join(members[i].thread, &seen));
		expect_hex("thread's result", (uintptr_t)&members[i], (uintptr_t)seen);
	}
	return specimen_end();
}
