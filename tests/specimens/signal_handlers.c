/*
 * Signal dispositions: handlers with their flags and masks, ignored signals and
 * defaults. Handlers run afterwards, with what sigqueue sent, and block what
 * they asked to have blocked.
 *
 * harness: musl
 */
#include "specimen.h"

#include <signal.h>

static volatile sig_atomic_t calls, seen_value, seen_code, usr2_blocked, self_blocked, one_shots;

static void with_info(int number, siginfo_t *info, void *context)
{
	(void)context;
	sigset_t mask;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	usr2_blocked = sigismember(&mask, SIGUSR2);
	self_blocked = sigismember(&mask, number);
	seen_value = info->si_value.sival_int;
	seen_code = info->si_code;
	calls++;
}

static void one_shot(int number)
{
	(void)number;
	one_shots++;
}

/* Real-time signals are counted from SIGRTMIN, which is no constant: offsets, see number_of. */
enum { RT = 1000 };

static const struct {
	int number, flags, blocks;
} table[] = {
	{ SIGUSR1, SA_SIGINFO, SIGUSR2 },
	{ RT + 3, SA_SIGINFO | SA_NODEFER, 0 },
	{ RT + 4, SA_SIGINFO | SA_RESTART, SIGUSR2 },
	{ SIGWINCH, SA_SIGINFO | SA_ONSTACK, SIGHUP },
	{ RT + 20, SA_SIGINFO | SA_NOCLDWAIT, RT + 9 },
};
enum { HANDLERS = sizeof(table) / sizeof(table[0]) };

static int number_of(int number)
{
	return number >= RT ? SIGRTMIN + number - RT : number;
}

static const int visible_flags =
	SA_SIGINFO | SA_NODEFER | SA_RESTART | SA_ONSTACK | SA_RESETHAND | SA_NOCLDWAIT;

static void check_table(void)
{
	for (int i = 0; i < HANDLERS; i++) {
		struct sigaction act;
		MUST(sigaction(number_of(table[i].number), NULL, &act));
		expect_hex("handler", (uintptr_t)with_info, (uintptr_t)act.sa_sigaction);
		expect_hex("flags", (unsigned)table[i].flags,
			   (unsigned)(act.sa_flags & visible_flags));
		for (int number = 1; number <= SIGRTMAX; number++) {
			int member = sigismember(&act.sa_mask, number);
			if (member >= 0) /* the library keeps some to itself */
				expect_int("blocked in the handler",
					   number == number_of(table[i].blocks), member);
		}
	}
}

static void send(int number, int value)
{
	calls = 0;
	MUST(sigqueue(getpid(), number, (union sigval){ .sival_int = value }));
	expect_int("calls of the handler", 1, calls);
	expect_int("its value", value, seen_value);
	expect_int("its si_code", SI_QUEUE, seen_code);
}

int main(void)
{
	for (int i = 0; i < HANDLERS; i++) {
		struct sigaction act = { .sa_sigaction = with_info, .sa_flags = table[i].flags };
		if (table[i].blocks)
			sigaddset(&act.sa_mask, number_of(table[i].blocks));
		MUST(sigaction(number_of(table[i].number), &act, NULL));
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);

	while (specimen_round()) {
		struct sigaction once = { .sa_handler = one_shot, .sa_flags = (int)SA_RESETHAND };
		MUST(sigaction(SIGALRM, &once, NULL));
		specimen_ready();
		check_table();
		send(SIGUSR1, 11);
		expect_int("SIGUSR2 is blocked in SIGUSR1's handler", 1, usr2_blocked);
		expect_int("SIGUSR1 is blocked in its handler", 1, self_blocked);
		send(SIGRTMIN + 3, 12);
		expect_int("SA_NODEFER: not blocked in its handler", 0, self_blocked);
		expect_int("SIGUSR2 neither", 0, usr2_blocked);

		one_shots = 0;
		MUST(raise(SIGALRM));
		expect_int("calls of the one-shot handler", 1, one_shots);
		MUST(sigaction(SIGALRM, NULL, &once));
		expect_hex("SA_RESETHAND", (uintptr_t)SIG_DFL, (uintptr_t)once.sa_handler);
		MUST(sigaction(SIGPIPE, NULL, &once));
		expect_hex("an ignored signal", (uintptr_t)SIG_IGN, (uintptr_t)once.sa_handler);
		MUST(sigaction(SIGTERM, NULL, &once));
		expect_hex("an untouched signal", (uintptr_t)SIG_DFL, (uintptr_t)once.sa_handler);
		raise(SIGPIPE);
	}
	return specimen_end();
}
