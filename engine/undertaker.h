/*
 * undertaker.h - a second thread, which buries tracees that have died while the first one waits inside the kernel.
 *
 * PTRACE_SEIZE waits for a lock (cred_guard_mutex, kernel/ptrace.c) that whoever executes a program holds until all other
 * threads of his process are gone (de_thread() in fs/exec.c), and of those that we trace already none is gone before we
 * have waited for it. Without somebody else of ours to do that, tracer and tracee wait for each other for ever.
 */
#ifndef ENGINE_UNDERTAKER_H
#define ENGINE_UNDERTAKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "store/error.h"

/* Threads: if one of so many executes, the other is the main one, and nobody waits for that to be buried. */
#define UNDERTAKER_FEW 2

struct undertaker {
	bool begun;
	pthread_t thread;
	sem_t enough;
	pthread_mutex_t lock; /* of the list */
	const pid_t *tids;    /* threads of one process, the main one first; NULL: none are being seized */
	size_t n;
};

/* Before anything is stopped, where processes of more than two threads are expected: making a thread takes time. Without
 * it, or where it failed, undertaker_watch() tries; NOMEM. All zeroes is one that has not begun. */
void undertaker_begin(struct undertaker *undertaker);
/* Tells it that it is not needed any more; the end waits for it, which takes time, too. */
void undertaker_leave(struct undertaker *undertaker);
void undertaker_end(struct undertaker *undertaker);

/* Between these two the process' threads are seized. The list stays the caller's. */
int undertaker_watch(struct undertaker *undertaker, const pid_t *tids, size_t n, struct fsnap_error *err);
void undertaker_look_away(struct undertaker *undertaker);

#endif
