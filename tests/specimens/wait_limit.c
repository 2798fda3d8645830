/*
 * Calls with a time limit that the kernel does not note when they are interrupted, most of which has passed:
 * epoll_wait and epoll_pwait. They last as long as they were to, not the whole time again; the same call
 * made once more has its whole limit.
 *
 * harness: threads=3 modes=left-running,restored,live,renumbered
 */
#include "specimen.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { LENGTH_MS = 1600, PASSED_MS = 1200, DOWN_MS = 1000, AGAIN_MS = 50 };

static int epoll;

static long in_epoll(int ms)
{
	struct epoll_event event;
	return epoll_wait(epoll, &event, 1, ms);
}

static long in_epoll_mask(int ms)
{
	struct epoll_event event;
	sigset_t mask;
	sigemptyset(&mask);
	return epoll_pwait(epoll, &event, 1, ms, &mask);
}

static const struct {
	const char *name;
	long (*call)(int ms);
} calls[] = {
	{ "epoll_wait", in_epoll },
	{ "epoll_pwait", in_epoll_mask },
};
enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

struct sleeper {
	int which;
	long result, again;
	long long lasted, lasted_again;
};

static void *sleep_twice(void *arg)
{
	struct sleeper *sleeper = arg;
	long long began = now_ms();
	sleeper->result = calls[sleeper->which].call((int)patient_ms(LENGTH_MS));
	sleeper->lasted = now_ms() - began;
	began = now_ms();
	sleeper->again = calls[sleeper->which].call(AGAIN_MS);
	sleeper->lasted_again = now_ms() - began;
	return NULL;
}

int main(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	epoll = MUST(epoll_create1(0));
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, MUST(eventfd(0, 0)), &event));
	while (specimen_round()) {
		struct sleeper sleepers[CALLS];
		pthread_t threads[CALLS];
		long long began = now_ms();
		for (int i = 0; i < CALLS; i++) {
			sleepers[i].which = i;
			threads[i] = start_blocked(sleep_twice, &sleepers[i]);
		}
		while (now_ms() - began < patient_ms(PASSED_MS))
			sleep_ms(10);
		specimen_ready();
		for (int i = 0; i < CALLS; i++) {
			MUST_ZERO(pthread_join(threads[i], NULL));
			expect_int(calls[i].name, 0, sleepers[i].result);
			expect_between("  lasted (ms)", patient_ms(LENGTH_MS), patient_ms(LENGTH_MS + DOWN_MS),
				       sleepers[i].lasted);
			expect_int("  once more", 0, sleepers[i].again);
			expect_between("  lasted (ms)", AGAIN_MS, LENGTH_MS, sleepers[i].lasted_again);
		}
	}
	return specimen_end();
}
