/*
 * specimen.h - what every specimen is made of.
 *
 * A specimen sets up one kind of state, says that it is ready, is dumped (and
 * perhaps killed and restored) while it waits, and then checks itself:
 *
 *	int main(void)
 *	{
 *		... state that must survive all rounds ...
 *		while (specimen_round()) {
 *			... state that this round's check uses up ...
 *			specimen_ready();	// dumped here
 *			expect_int("what", expected, seen);
 *		}
 *		return specimen_end();
 *	}
 *
 * It talks with the harness (run-specimen) through files in its work directory
 * and through nothing else, because everything else may be what is tested:
 *
 *	ready.N   specimen: round N may be dumped
 *	go.N      harness: check yourself; holds "more" or "last"
 *	part.N    children of the specimen: one byte each when they have checked
 *	result    one line per expectation, "ok ..." or "FAIL ...", from all processes
 *	done.N    specimen: all of round N is checked
 */
#ifndef TESTS_SPECIMEN_H
#define TESTS_SPECIMEN_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* --- rounds ------------------------------------------------------------- */

/* Is there another round? Ends the one before. For the specimen's first process only. */
bool specimen_round(void);

/* Says that this round may be dumped, and returns when the harness wants the check. */
void specimen_ready(void);

/* Which round it is, from 1. */
int specimen_number(void);

/* The status to exit with: 0 if all this process expected was seen. */
int specimen_end(void);

/*
 * The loop of another process of the specimen: waits until the harness wants
 * the check, tells the first process (specimen_await) when it is through.
 */
bool specimen_child_round(void);

/* Waits until n other processes are through with this round. */
void specimen_await(int n);

/* Ends the specimen as not runnable here, with the reason; use before the first round. */
_Noreturn void specimen_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- expectations: they print what was expected and what was seen --------- */

bool expect_int(const char *what, long long expected, long long seen);
bool expect_hex(const char *what, unsigned long long expected, unsigned long long seen);
bool expect_between(const char *what, long long low, long long high, long long seen);
bool expect_text(const char *what, const char *expected, const char *seen);
bool expect_bytes(const char *what, const void *expected, const void *seen, size_t size);
bool expect_pattern(const char *what, const void *seen, size_t size, uint64_t seed);
bool expect_zero(const char *what, const void *seen, size_t size);
/* A call that should succeed: seen is what it returned, -1 with errno otherwise. */
bool expect_ok(const char *what, long long seen);
/* A call that should fail with this errno. */
bool expect_errno(const char *what, int expected, long long seen);

/* --- set-up --------------------------------------------------------------- */

/* A step that cannot fail where the specimen can run at all; gives its value. */
#define MUST(expression)                                                         \
	({                                                                       \
		__typeof__(expression) must_value = (expression);                \
		if ((intptr_t)must_value == -1)                                  \
			specimen_broken(__FILE__, __LINE__, #expression, errno); \
		must_value;                                                      \
	})
/* The same for calls that return an error number (pthread). */
#define MUST_ZERO(expression)                                                           \
	do {                                                                            \
		int must_error = (expression);                                          \
		if (must_error)                                                         \
			specimen_broken(__FILE__, __LINE__, #expression, must_error);   \
	} while (0)
_Noreturn void specimen_broken(const char *file, int line, const char *step, int error);

/* "WORK/name", absolute. The text is the caller's to free; specimens do not bother. */
char *specimen_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Bytes that depend on seed and position, never a page of one value. */
void pattern_fill(void *to, size_t size, uint64_t seed);

void sleep_ms(long ms);
long patient_ms(long ms); /* for limits that must not have run out when all is compared: longer with a sanitized fsnap */
long long now_ms(void); /* CLOCK_MONOTONIC */

/* A thread that runs call(arg), which is to block: returns once it sleeps in there. */
pthread_t start_blocked(void *(*call)(void *), void *arg);

/* As tests/README.md lists them; for what only a restore changes. */
const char *specimen_mode(void);

/* Does this round's dump kill, so that what goes on is restored? */
bool specimen_dies(void);

/* Waits until this task of ours sleeps in the kernel, so that it is dumped inside its call. */
void until_asleep(pid_t tid);

/* The value of "key:" in /proc/PID/status (or another such file), into buf. */
const char *proc_field(const char *path, const char *key, char *buf, size_t size);

#endif
