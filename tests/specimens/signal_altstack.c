/*
 * Dumped inside a signal handler on an alternate stack: the handler goes on
 * there, knows that it does, and its return leads back to where the signal hit,
 * with the signal mask of that place.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/mman.h>

enum { SIZE = 1 << 18 };

static char *stack;
static volatile int handled;

static void on_signal(int number)
{
	char here[2048];
	pattern_fill(here, sizeof(here), 8);
	stack_t seen;
	specimen_ready();
	expect_pattern("the handler's own variables", here, sizeof(here), 8);
	expect_int("the handler is on the alternate stack", 1,
		   here >= stack && here < stack + SIZE);
	MUST(sigaltstack(NULL, &seen));
	expect_hex("alternate stack", (uintptr_t)stack, (uintptr_t)seen.ss_sp);
	expect_int("it says it is in use", SS_ONSTACK, seen.ss_flags);
	sigset_t mask;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	expect_int("the signal is blocked meanwhile", 1, sigismember(&mask, number));
	expect_int("so is what sa_mask says", 1, sigismember(&mask, SIGHUP));
	handled++;
}

int main(void)
{
	stack = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	stack_t alternate = { .ss_sp = stack, .ss_size = SIZE };
	MUST(sigaltstack(&alternate, NULL));
	struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	sigaddset(&act.sa_mask, SIGHUP);
	MUST(sigaction(SIGUSR1, &act, NULL));
	sigset_t usr2;
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	MUST(sigprocmask(SIG_BLOCK, &usr2, NULL));

	while (specimen_round()) {
		volatile uint64_t local = 0x5eed;
		int before = handled;
		MUST(raise(SIGUSR1));
		expect_int("back from the handler", before + 1, handled);
		expect_hex("the interrupted function's variable", 0x5eed, local);
		sigset_t mask;
		sigprocmask(SIG_BLOCK, NULL, &mask);
		expect_int("mask: SIGUSR1", 0, sigismember(&mask, SIGUSR1));
		expect_int("mask: SIGHUP", 0, sigismember(&mask, SIGHUP));
		expect_int("mask: SIGUSR2", 1, sigismember(&mask, SIGUSR2));
		stack_t seen;
		MUST(sigaltstack(NULL, &seen));
		expect_int("the alternate stack is free again", 0, seen.ss_flags);
	}
	return specimen_end();
}
