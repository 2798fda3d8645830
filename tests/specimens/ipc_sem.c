/*
 * System V semaphores: a set comes back with number, key, owner, values, and who was last at each;
 * a process that waited goes on waiting; and what SEM_UNDO will undo when a process ends, small
 * and large, up and down, is undone then. All of it was removed before the restore.
 *
 * harness: ipc=gone
 */
#include "specimen.h"

#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/wait.h>

enum { TAKEN, GIVEN, LARGE, FULL, TWICE, GATE, BY_PARENT, SEMAPHORES };

enum { KEY = 0x5eed2001 };

static const unsigned short begun[SEMAPHORES] = { 10, 7, 32000, 32767, 100, 0, 3 };

static int op(int id, int number, int by, int flags)
{
	struct sembuf op = { (unsigned short)number, (short)by, (short)flags };
	return semop(id, &op, 1);
}

static void *wait_at_gate(void *id)
{
	int result = op(*(int *)id, GATE, -1, 0);
	expect_ok("the waiter has passed the gate", result);
	return NULL;
}

static void child(int id)
{
	MUST(op(id, TAKEN, -3, SEM_UNDO));
	MUST(op(id, GIVEN, 5, SEM_UNDO));
	MUST(op(id, LARGE, -30000, SEM_UNDO));
	MUST(op(id, FULL, -32767, SEM_UNDO));
	MUST(op(id, TWICE, -60, SEM_UNDO));
	MUST(op(id, TWICE, 60, 0));
	MUST(op(id, TWICE, -100, SEM_UNDO));
	while (true) {
		pthread_t waiter = start_blocked(wait_at_gate, &id);
		if (!specimen_child_round()) {
			MUST(op(id, GATE, 1, 0));
			MUST_ZERO(pthread_join(waiter, NULL));
			break;
		}
		expect_int("one waits at the gate", 1, semctl(id, GATE, GETNCNT));
		expect_ok("opening the gate", op(id, GATE, 1, 0));
		MUST_ZERO(pthread_join(waiter, NULL));
	}
	/* Not before all others have seen what it holds. */
	MUST(op(id, GATE, -1, 0));
	_exit(specimen_end());
}

int main(void)
{
	MUST(semctl(MUST(semget(IPC_PRIVATE, 1, 0600)), 0, IPC_RMID));
	int id = MUST(semget(KEY, SEMAPHORES, IPC_CREAT | IPC_EXCL | 0660));
	int fresh = MUST(semget(IPC_PRIVATE, 2, 0600)); /* made, and never used */
	MUST(semctl(id, 0, SETALL, begun));
	pid_t pid = MUST(fork());
	if (pid == 0)
		child(id);
	while (semctl(id, GATE, GETNCNT) != 1)
		sleep_ms(1);
	/* Last at one that the other has something to undo of; and something of its own. */
	MUST(op(id, GIVEN, 1, 0));
	MUST(op(id, BY_PARENT, -1, SEM_UNDO));

	static const int values[] = { 7, 13, 2000, 0, 0, 0, 2 };
	struct semid_ds facts, now;
	MUST(semctl(id, 0, IPC_STAT, &facts));
	while (specimen_round()) {
		specimen_ready();
		expect_int("id behind the key", id, semget(KEY, 0, 0));
		expect_ok("IPC_STAT", semctl(id, 0, IPC_STAT, &now));
		expect_hex("mode", 0660, now.sem_perm.mode);
		expect_int("owner", facts.sem_perm.uid, now.sem_perm.uid);
		expect_int("creator", facts.sem_perm.cuid, now.sem_perm.cuid);
		expect_int("semop has been called", 1, now.sem_otime != 0);
		for (int i = 0; i < SEMAPHORES; i++) {
			if (i == GATE)
				continue;
			expect_int("value", values[i], semctl(id, i, GETVAL));
			expect_int("who was last", i == GIVEN || i == BY_PARENT ? getpid() : pid,
				   semctl(id, i, GETPID));
		}
		expect_ok("IPC_STAT of the fresh one", semctl(fresh, 0, IPC_STAT, &now));
		expect_int("semop on the fresh one", 0, now.sem_otime);
		expect_int("last at the fresh one", 0, semctl(fresh, 1, GETPID));
		specimen_await(1);
	}
	MUST(op(id, GATE, 1, 0));
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	static const int undone[] = { 10, 8, 32000, 32767, 160, 0, 2 };
	for (int i = 0; i < SEMAPHORES; i++)
		expect_int("value when the child has ended", undone[i], semctl(id, i, GETVAL));
	return specimen_end();
}
