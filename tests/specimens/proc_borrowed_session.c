/*
 * A tree that was started by hand from a shell: its session is the shell's,
 * which is not saved. It comes back in another session, but with its process
 * groups among themselves as they were.
 *
 * harness: session differs=NSsid|NSpgid
 */
#include "specimen.h"

#include <sys/wait.h>

int main(void)
{
	pid_t with_us = MUST(fork());
	if (with_us == 0) {
		while (specimen_child_round())
			expect_int("child: in its parent's group", getpgid(getppid()), getpgrp());
		_exit(specimen_end());
	}
	pid_t own_group = MUST(fork());
	if (own_group == 0) {
		MUST(setpgid(0, 0));
		while (specimen_child_round())
			expect_int("child: in a group of its own", getpid(), getpgrp());
		_exit(specimen_end());
	}
	sleep_ms(20);
	while (specimen_round()) {
		specimen_ready();
		expect_int("a child is in our group", getpgrp(), getpgid(with_us));
		expect_int("the other leads its own", own_group, getpgid(own_group));
		expect_int("both are in our session", getsid(0), getsid(own_group));
		expect_ok("getsid", getsid(0));
		specimen_await(2);
	}
	while (wait(NULL) > 0)
		;
	return specimen_end();
}
