/*
 * Event counters: their values, semaphore mode and flags; one that is shared
 * by two processes still is.
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

int main(void)
{
	int plain = MUST(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	int semaphore = MUST(eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK));
	int full = MUST(eventfd(0, EFD_NONBLOCK)), shared = MUST(eventfd(0, 0));
	uint64_t most = UINT64_MAX - 1;
	MUST(write(full, &most, 8));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		while (specimen_child_round()) {
			uint64_t number = 100 + (uint64_t)specimen_number();
			expect_int("child writes", 8, write(shared, &number, 8));
		}
		_exit(specimen_end());
	}
	while (specimen_round()) {
		uint64_t value = 12345, three = 3;
		MUST(write(plain, &value, 8));
		MUST(write(semaphore, &three, 8));
		specimen_ready();
		value = 0;
		expect_ok("read", read(plain, &value, 8));
		expect_int("value", 12345, (long long)value);
		expect_errno("it is empty now", EAGAIN, read(plain, &value, 8));
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(plain, F_GETFD));
		for (int i = 0; i < 3; i++) {
			expect_ok("read from the semaphore", read(semaphore, &value, 8));
			expect_int("one at a time", 1, (long long)value);
		}
		expect_errno("it is empty now", EAGAIN, read(semaphore, &value, 8));
		value = 1;
		expect_errno("a full one takes no more", EAGAIN, write(full, &value, 8));
		expect_ok("blocking read of the shared one", read(shared, &value, 8));
		expect_int("the child's value", 100 + specimen_number(), (long long)value);
		specimen_await(1);
	}
	waitpid(pid, NULL, 0);
	return specimen_end();
}
