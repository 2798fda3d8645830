/* thread.h - threads of ours in somebody else's program, whose business signals are: none of ours takes any. */
#ifndef STORE_THREAD_H
#define STORE_THREAD_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

/* As pthread_create(3). */
bool thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);
/* sem_wait(3), whatever interrupts it. */
void thread_await(sem_t *semaphore);

#endif
