/*
 * Every thread has its own FS base (its thread-local storage) and GS base; both
 * are there afterwards, as asked from the kernel and as used by instructions.
 */
#include "specimen.h"

#include <asm/prctl.h>
#include <semaphore.h>
#include <sys/syscall.h>

enum { THREADS = 3 };

static sem_t start[THREADS], through;
static __thread int own = 5;

static uint64_t base(int which)
{
	uint64_t address = 0;
	MUST(syscall(SYS_arch_prctl, which, &address));
	return address;
}

static void *live(void *arg)
{
	int index = (int)(intptr_t)arg;
	uint64_t area[2] = { 0x1234567800000000u + (uint64_t)index, 99 };
	MUST(syscall(SYS_arch_prctl, ARCH_SET_GS, area));
	uint64_t fs = base(ARCH_GET_FS);
	own = 100 + index;
	for (;;) {
		sem_post(&through);
		while (sem_wait(&start[index]) < 0)
			;
		uint64_t seen;
		__asm__ volatile("mov %%gs:0, %0" : "=r"(seen));
		expect_hex("word at GS base", area[0], seen);
		expect_hex("GS base", (uintptr_t)area, base(ARCH_GET_GS));
		expect_hex("FS base", fs, base(ARCH_GET_FS));
		expect_int("thread-local variable", 100 + index, own);
	}
	return NULL;
}

int main(void)
{
	sem_init(&through, 0, 0);
	for (int i = 0; i < THREADS; i++) {
		sem_init(&start[i], 0, 0);
		pthread_t thread;
		MUST_ZERO(pthread_create(&thread, NULL, live, (void *)(intptr_t)i));
	}
	while (specimen_round()) {
		for (int i = 0; i < THREADS; i++)
			while (sem_wait(&through) < 0)
				;
		specimen_ready();
		for (int i = 0; i < THREADS; i++)
			sem_post(&start[i]);
		for (int i = 0; i < THREADS; i++)
			while (sem_wait(&through) < 0)
				;
		for (int i = 0; i < THREADS; i++)
			sem_post(&through);
	}
	return specimen_end();
}
