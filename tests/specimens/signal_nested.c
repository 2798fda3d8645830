/*
 * A handler in progress within another, on the alternate stack; sigsuspend, ppoll, pselect and epoll_pwait
 * with a mask of their own: the masks that are to come back when they end are those from before, the
 * frames return to where they were left, and a signal only their mask lets through ends them.
 *
 * harness: threads=6
 */
#include "specimen.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <ucontext.h>

static volatile int may_return;
static volatile uint64_t sum;
static volatile pid_t nested_tid;
static char altstack[65536];

static uint64_t mask_now(void)
{
	uint64_t mask = 0;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
	return mask;
}

#define BIT(signo) (1ull << ((signo) - 1))

static void on_second(int number, siginfo_t *info, void *context)
{
	(void)number;
	char local[512];
	pattern_fill(local, sizeof(local), 9);
	bool inside = (char *)&local > altstack && (char *)&local < altstack + sizeof(altstack);
	nested_tid = (pid_t)syscall(SYS_gettid);
	while (!may_return)
		sleep_ms(2);
	expect_int("the inner handler is on the alternate stack", 1, inside);
	expect_hex("mask within it", BIT(SIGUSR1) | BIT(SIGUSR2) | BIT(SIGTERM), mask_now());
	expect_hex("mask it returns to", BIT(SIGUSR1), *(uint64_t *)&((ucontext_t *)context)->uc_sigmask);
	expect_int("value of its signal", 17, info->si_value.sival_int);
	expect_pattern("its stack", local, sizeof(local), 9);
	sum = sum * 10 + 2;
}

static void on_first(int number)
{
	(void)number;
	uint64_t kept = 0x1234567890abcdefull;
	__asm__ volatile("" : "+r"(kept));
	MUST(pthread_sigqueue(pthread_self(), SIGUSR2, (union sigval){ .sival_int = 17 }));
	__asm__ volatile("" : "+r"(kept));
	expect_hex("mask in the outer handler", BIT(SIGUSR1), mask_now());
	expect_hex("a register of the outer handler", 0x1234567890abcdefull, kept);
	sum = sum * 10 + 1;
}

static void *nested(void *arg)
{
	(void)arg;
	stack_t stack = { .ss_sp = altstack, .ss_size = sizeof(altstack) };
	MUST(sigaltstack(&stack, NULL));
	for (;;) {
		uint64_t before = mask_now();
		MUST(pthread_kill(pthread_self(), SIGUSR1));
		expect_hex("mask behind both", before, mask_now());
		sum = sum * 10 + 3;
		while (nested_tid)
			sleep_ms(1);
	}
}

/* --- calls with a mask of their own --------------------------------------------------- */

static volatile int woken;

static void on_quit(int number)
{
	(void)number;
	__atomic_add_fetch(&woken, 1, __ATOMIC_RELAXED);
}

static int in_sigsuspend(const sigset_t *mask)
{
	return sigsuspend(mask);
}

static int in_ppoll(const sigset_t *mask)
{
	struct timespec limit = { 60, 0 };
	return ppoll(NULL, 0, &limit, mask);
}

static int in_pselect(const sigset_t *mask)
{
	struct timespec limit = { 60, 0 };
	return pselect(0, NULL, NULL, NULL, &limit, mask);
}

static int in_epoll(const sigset_t *mask)
{
	struct epoll_event event;
	int epoll = MUST(epoll_create1(0));
	int result = epoll_pwait(epoll, &event, 1, 60000, mask), error = errno;
	close(epoll);
	errno = error;
	return result;
}

static int (*const calls[])(const sigset_t *) = { in_sigsuspend, in_ppoll, in_pselect, in_epoll };
static const char *const names[] = { "sigsuspend", "ppoll", "pselect", "epoll_pwait" };
enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

static void *with_mask(void *arg)
{
	int which = (int)(intptr_t)arg;
	sigset_t blocked, none;
	sigfillset(&blocked);
	MUST_ZERO(pthread_sigmask(SIG_SETMASK, &blocked, NULL));
	uint64_t before = mask_now();
	sigemptyset(&none);
	errno = 0;
	int result = calls[which](&none), error = errno;
	expect_int(names[which], -1, result);
	expect_int("  is ended by the signal", EINTR, error);
	expect_hex("  the mask is the one from before", before, mask_now());
	return NULL;
}

int main(void)
{
	struct sigaction second = { .sa_sigaction = on_second, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	sigaddset(&second.sa_mask, SIGTERM);
	MUST(sigaction(SIGUSR2, &second, NULL));
	signal(SIGUSR1, on_first);
	struct sigaction quit = { .sa_handler = on_quit };
	MUST(sigaction(SIGQUIT, &quit, NULL));
	pthread_t nest;
	MUST_ZERO(pthread_create(&nest, NULL, nested, NULL));
	while (specimen_round()) {
		pthread_t threads[CALLS];
		while (!nested_tid)
			sleep_ms(1);
		woken = 0;
		for (int i = 0; i < CALLS; i++)
			threads[i] = start_blocked(with_mask, (void *)(intptr_t)i);
		specimen_ready();
		sleep_ms(20);
		expect_int("none has ended by itself", 0, woken);
		for (int i = 0; i < CALLS; i++) {
			MUST_ZERO(pthread_kill(threads[i], SIGQUIT));
			MUST_ZERO(pthread_join(threads[i], NULL));
		}
		expect_int("handlers run", CALLS, woken);
		sum = 0;
		may_return = 1;
		for (int ms = 0; sum != 213 && ms < 2000; ms++)
			sleep_ms(1);
		expect_int("the order in which all returned", 213, (long long)sum);
		may_return = 0;
		nested_tid = 0;
	}
	_exit(specimen_end());
}
