/*
 * kernel.h - all that the agent knows of the world: system calls and futexes.
 *
 * Kernel headers only, no libc: this is compiled -ffreestanding into a process
 * whose libc, if it has one, is not ours to call.
 */
#ifndef PARASITE_KERNEL_H
#define PARASITE_KERNEL_H

#include <asm/errno.h>
#include <asm/unistd.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/time_types.h>
#include <stdbool.h>
#include <stdint.h>

/* Of signal(7) and wait(2), whose exported headers clash with the compiler's own or declare much else. */
#define SIGBUS 7
#define SIGKILL 9
#define SIGSEGV 11
#define SIG_UNBLOCK 1
#define SA_RESTORER 0x04000000ul
#define SA_ONSTACK 0x08000000ul
#define __WALL 0x40000000

/* Of socket(7), which the kernel's exported headers leave to libc. */
#define AF_UNIX 1
#define SOCK_DGRAM 2
#define SOCK_CLOEXEC 02000000
#define MSG_DONTWAIT 0x40
#define MSG_CMSG_CLOEXEC 0x40000000

static inline int64_t syscall6(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
			       uint64_t e, uint64_t f)
{
	register uint64_t r10 __asm__("r10") = d;
	register uint64_t r8 __asm__("r8") = e;
	register uint64_t r9 __asm__("r9") = f;
	int64_t result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define SYSCALL_AS(nr, a, b, c, d, e, f, ...)                                                  \
	syscall6(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), \
		 (uint64_t)(f))
/* SYSCALL(__NR_close, fd): up to six arguments, the missing ones are 0. */
#define SYSCALL(...) SYSCALL_AS(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static inline bool is_error(int64_t result)
{
	return result < 0 && result >= -4095;
}

static inline uint32_t load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Not FUTEX_PRIVATE: the sleepers are in other processes. */
static inline void wake(uint32_t *word)
{
	SYSCALL(__NR_futex, word, FUTEX_WAKE, INT32_MAX);
}

static inline void store_and_wake(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	wake(word);
}

static inline void add_and_wake(uint32_t *word, uint32_t value)
{
	__atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
	wake(word);
}

/* All wait for the same sum: who is woken before sleeps again, and of n who come one by one each would wake all before. */
static inline void add_and_wake_at(uint32_t *word, uint32_t value, uint32_t sum)
{
	if (__atomic_add_fetch(word, value, __ATOMIC_ACQ_REL) >= sum)
		wake(word);
}

/*
 * Sleeps `ms`.  ppoll is the one timed sleep that leaves no restart block (agent.c, rule 5); its raw
 * form writes the remaining time into `left`, so that an interrupted sleep does not begin anew.
 */
static inline void nap(uint32_t ms)
{
	struct __kernel_timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000ll};
	while (SYSCALL(__NR_ppoll, 0, 0, &left) == -EINTR)
		;
}

/* Sleeps until one of `n` words is no longer what `words` says; may return early. */
static inline void sleep_on(struct futex_waitv *words, uint32_t n)
{
	int64_t result = SYSCALL(__NR_futex_waitv, words, n);
	if (is_error(result) && result != -EAGAIN && result != -EINTR)
		nap(1); /* before Linux 5.16, or refused by a seccomp filter */
}

#endif
