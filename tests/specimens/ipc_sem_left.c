/*
 * A System V semaphore set that a killed tree has left behind: what was to be undone when it ended has been
 * undone by then; after the restore the values are those of the dump again, and so is what will be.
 */
#include "specimen.h"

#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/wait.h>

static void change(int id, int number, int by, int flags)
{
	struct sembuf op = { (unsigned short)number, (short)by, (short)flags };
	MUST(semop(id, &op, 1));
}

int main(void)
{
	int id = MUST(semget(IPC_PRIVATE, 2, 0600));
	MUST(semctl(id, 0, SETVAL, 1));
	MUST(semctl(id, 1, SETVAL, 0));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		change(id, 0, -1, SEM_UNDO); /* a lock, held */
		while (specimen_child_round())
			expect_int("the lock is held", 0, semctl(id, 0, GETVAL));
		change(id, 1, -1, 0); /* not before the parent has looked */
		_exit(specimen_end());
	}
	while (semctl(id, 0, GETVAL) != 0)
		sleep_ms(1);
	while (specimen_round()) {
		specimen_ready();
		expect_int("value", 0, semctl(id, 0, GETVAL));
		expect_int("holder", pid, semctl(id, 0, GETPID));
		specimen_await(1);
	}
	change(id, 1, 1, 0);
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	expect_int("the lock is free when its holder has ended", 1, semctl(id, 0, GETVAL));
	return specimen_end();
}
