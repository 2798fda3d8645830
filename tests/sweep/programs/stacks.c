/*
 * stacks WORK coroutine|alternate|nested|thread - stands on a stack of its own making, close to its end, with the main stack
 * in use down to its lowest bytes, and notices if anything of what lies on either, or beyond, changes.
 *
 *	coroutine  the main thread, on a stack of makecontext(3)
 *	alternate  the main thread, in a handler on an alternate stack
 *	nested     the same, the alternate stack lying on the main one, above what was interrupted
 *	thread     another thread, in a coroutine
 *
 * When the file WORK/ask is there it checks itself, writes what it found to WORK/answer ("ok", or what is
 * wrong) and removes WORK/ask.
 */
#include <alloca.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define HEAP (256u << 10)
#define STACK (64u << 10) /* in the midst of it */
#define LEFT 3072	  /* to its end, where it stands: less than a frame of a signal */
#define MARK 0x5a
#define IDLE 4		  /* threads more, which want frames, too */

static char work[3000];
static const char *mode;
static char *heap;
static volatile char *deep; /* what of the main stack is in use, from its lowest bytes on */
static size_t deep_size;
static ucontext_t before, on_heap;

static const char *look(void)
{
	for (size_t i = 0; i < (HEAP - STACK) / 2; i++)
		if (heap[i] != MARK)
			return "what lies below its stack has changed";
	for (size_t i = 0; i < deep_size; i++)
		if (deep[i] != MARK)
			return "the main stack has changed";
	return "ok";
}

static void answer(void)
{
	char path[4000], new[4000], final[4000];
	const char *what = look();
	snprintf(path, sizeof(path), "%s/ask", work);
	snprintf(new, sizeof(new), "%s/answer.new", work);
	snprintf(final, sizeof(final), "%s/answer", work);
	int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, what, strlen(what)) < 0 || close(fd) < 0 || unlink(path) < 0 || rename(new, final) < 0)
		exit(3);
}

/* The waiting itself takes next to nothing of a stack, and answering is done elsewhere. */
static void wait_for_ever(void)
{
	char path[4000];
	snprintf(path, sizeof(path), "%s/ready", work);
	close(open(path, O_WRONLY | O_CREAT, 0644));
	snprintf(path, sizeof(path), "%s/ask", work);
	for (;; usleep(1000))
		if (access(path, F_OK) == 0)
			answer();
}

static void *answer_in_a_thread(void *unused)
{
	wait_for_ever();
	return unused;
}

static void stand(void)
{
	for (;;)
		pause();
}

static void *stand_idle(void *unused)
{
	stand();
	return unused;
}

static void stand_low(void)
{
	char here;
	size_t room = (size_t)(&here - (heap + (HEAP - STACK) / 2));
	if (room > LEFT + 256) {
		volatile char *taken = alloca(room - LEFT - 256);
		taken[0] = 1;
	}
	stand();
}

static void enter_coroutine(void)
{
	getcontext(&on_heap);
	on_heap.uc_stack.ss_sp = heap + (HEAP - STACK) / 2;
	on_heap.uc_stack.ss_size = STACK;
	on_heap.uc_link = NULL;
	makecontext(&on_heap, stand_low, 0);
	swapcontext(&before, &on_heap);
}

static void *coroutine_in_a_thread(void *unused)
{
	enter_coroutine();
	return unused;
}

static void on_signal(int signo)
{
	(void)signo;
	if (strcmp(mode, "nested") == 0)
		stand();
	stand_low();
}

static void raise_on(char *alternate, size_t size)
{
	const stack_t stack = { .ss_sp = alternate, .ss_size = size };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	if (sigaltstack(&stack, NULL) < 0 || sigaction(SIGUSR1, &action, NULL) < 0)
		exit(3);
}

static char *end_of_main_stack(void)
{
	char line[512], *end = NULL;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "[stack]"))
			end = (char *)strtoul(line, NULL, 16);
	if (maps)
		fclose(maps);
	return end;
}

/* A signal interrupts it as deep as that. */
static void go_deep(void)
{
	char here, *end = end_of_main_stack();
	deep_size = (size_t)(&here - end) - 2048;
	deep = alloca(deep_size);
	for (size_t i = 0; i < deep_size; i++)
		deep[i] = MARK;
	if (strcmp(mode, "coroutine") == 0)
		enter_coroutine();
	else if (strcmp(mode, "thread") != 0)
		raise(SIGUSR1);
	stand();
}

int main(int argc, char **argv)
{
	char on_main_stack[STACK];
	pthread_t thread;
	if (argc < 3)
		return 2;
	snprintf(work, sizeof(work), "%s", argv[1]);
	mode = argv[2];
	heap = malloc(HEAP);
	memset(heap, MARK, HEAP);
	if (pthread_create(&thread, NULL, answer_in_a_thread, NULL))
		return 3;
	for (int i = 0; i < IDLE; i++)
		if (pthread_create(&thread, NULL, stand_idle, NULL))
			return 3;
	if (strcmp(mode, "thread") == 0 && pthread_create(&thread, NULL, coroutine_in_a_thread, NULL))
		return 3;
	raise_on(strcmp(mode, "nested") == 0 ? on_main_stack : heap + (HEAP - STACK) / 2, STACK);
	go_deep();
}
