/*
 * Processes whose main thread has ended while others go on, one of them the first of the tree: those
 * have their memory, descriptors and children; and when the last of them ends, the parent is told
 * a status: that of the main thread, or, on kernels of today, that of the last.
 *
 * harness: musl differs=SigBlk
 */
#include "specimen.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int ends[2];

/* Its main thread ends with 5, its last one, when it is told to, with 6. */
static void *last_of_child(void *arg)
{
	char byte = 0;
	pid_t pid = getpid();
	close(ends[1]);
	while (read(ends[0], &byte, 1) == 1 && byte != 'e')
		;
	if (getpid() != pid || getppid() != *(pid_t *)arg)
		syscall(SYS_exit_group, 99);
	syscall(SYS_exit, 6);
	return NULL;
}

static char state(pid_t pid)
{
	char path[64], text[64];
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return proc_field(path, "State", text, sizeof(text))[0];
}

static pid_t start_child(pid_t *parent)
{
	*parent = getpid();
	MUST(pipe(ends));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		pthread_t thread;
		pthread_attr_t attributes;
		pthread_attr_init(&attributes);
		pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
		MUST_ZERO(pthread_create(&thread, &attributes, last_of_child, parent));
		syscall(SYS_exit, 5);
	}
	close(ends[0]);
	while (state(pid) != 'Z')
		sleep_ms(1);
	return pid;
}

static int end(pid_t child)
{
	int status = -1;
	MUST(write(ends[1], "e", 1));
	close(ends[1]);
	MUST(waitpid(child, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void *go_on(void *arg)
{
	static char pattern[10000];
	static pid_t parent;
	pthread_join(*(pthread_t *)arg, NULL);
	pattern_fill(pattern, sizeof(pattern), 3);
	int usual = end(start_child(&parent));
	while (specimen_round()) {
		pid_t child = start_child(&parent);
		while (state(getpid()) != 'Z')
			sleep_ms(1);
		specimen_ready();
		expect_int("the main thread has ended", 'Z', state(getpid()));
		expect_int("we are another", 1, getpid() != syscall(SYS_gettid));
		expect_pattern("memory", pattern, sizeof(pattern), 3);
		expect_int("the child lives", 0, waitpid(child, NULL, WNOHANG));
		expect_int("and ends with", usual, end(child));
	}
	exit(specimen_end());
}

int main(void)
{
	pthread_t thread;
	static pthread_t self;
	self = pthread_self();
	MUST_ZERO(pthread_create(&thread, NULL, go_on, &self));
	pthread_exit(NULL);
}
