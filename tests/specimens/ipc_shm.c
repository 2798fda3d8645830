/*
 * System V shared memory: segments come back with number, key, owner, creator, mode, size and
 * lock; attached where they were, several times, read-only, in two processes, and counted as
 * before; what one process writes the other sees. One that nobody has attached comes back, too,
 * if the tree made it. All of them were removed before the restore.
 *
 * harness: ipc=gone
 */
#include "specimen.h"

#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>

enum { PAGE = 4096, SIZE = 5 * PAGE + 100, KEY = 0x5eed0001, IDLE_KEY = 0x5eed0002 };

struct board {
	volatile int to_child, to_parent;
};

static int await(volatile int *word, int value)
{
	for (long long end = now_ms() + 5000; *word != value && now_ms() < end;)
		sleep_ms(1);
	return *word;
}

static void expect_facts(const char *what, int id, int key, const struct shmid_ds *was)
{
	struct shmid_ds now;
	char text[96];
	snprintf(text, sizeof(text), "%s: IPC_STAT", what);
	if (!expect_ok(text, shmctl(id, IPC_STAT, &now)))
		return;
	expect_hex("key", (unsigned)was->shm_perm.__key, (unsigned)now.shm_perm.__key);
	expect_hex("mode", was->shm_perm.mode, now.shm_perm.mode);
	expect_int("owner", was->shm_perm.uid, now.shm_perm.uid);
	expect_int("group", was->shm_perm.gid, now.shm_perm.gid);
	expect_int("creator", was->shm_perm.cuid, now.shm_perm.cuid);
	expect_int("creator's group", was->shm_perm.cgid, now.shm_perm.cgid);
	expect_int("creating process", was->shm_cpid, now.shm_cpid);
	expect_int("size", (long long)was->shm_segsz, (long long)now.shm_segsz);
	expect_int("attachments", (long long)was->shm_nattch, (long long)now.shm_nattch);
	if (key)
		expect_int("id behind the key", id, shmget(key, 0, 0));
}

static void child(char *at, struct board *board)
{
	int number = 0;
	while (specimen_child_round()) {
		number++;
		expect_int("child sees the parent's write", number,
			   await(&board->to_child, number));
		expect_pattern("child's view", at, PAGE, 70 + (uint64_t)number);
		pattern_fill(at + 4 * PAGE, PAGE + 100, 80 + (uint64_t)number);
		board->to_parent = number;
	}
	_exit(specimen_end());
}

int main(void)
{
	/* Numbers are not those of a fresh namespace. */
	MUST(shmctl(MUST(shmget(IPC_PRIVATE, PAGE, 0600)), IPC_RMID, NULL));
	int id = MUST(shmget(KEY, SIZE, IPC_CREAT | IPC_EXCL | 0640));
	int idle = MUST(shmget(IDLE_KEY, 3 * PAGE, IPC_CREAT | IPC_EXCL | 0600));
	int private = MUST(shmget(IPC_PRIVATE, PAGE, 0600));
	char *at = MUST(shmat(id, NULL, 0));
	char *again = MUST(shmat(id, NULL, 0));
	char *readonly = MUST(shmat(id, NULL, SHM_RDONLY));
	struct board *board = MUST(shmat(private, NULL, 0));
	bool locked = shmctl(id, SHM_LOCK, NULL) == 0;
	pattern_fill(at, SIZE, 60);
	char *there = MUST(shmat(idle, NULL, 0));
	pattern_fill(there + PAGE, PAGE, 61);
	MUST(shmdt(there));

	pid_t pid = MUST(fork());
	if (pid == 0)
		child(at, board);
	struct shmid_ds facts, idle_facts, private_facts;
	MUST(shmctl(id, IPC_STAT, &facts));
	MUST(shmctl(idle, IPC_STAT, &idle_facts));
	MUST(shmctl(private, IPC_STAT, &private_facts));

	while (specimen_round()) {
		specimen_ready();
		int number = specimen_number();
		expect_facts("segment", id, KEY, &facts);
		expect_facts("idle segment", idle, IDLE_KEY, &idle_facts);
		expect_facts("private segment", private, 0, &private_facts);
		if (number == 1)
			expect_pattern("what was there before", at, SIZE, 60);
		pattern_fill(at, PAGE, 70 + (uint64_t)number);
		expect_pattern("second attachment", again, PAGE, 70 + (uint64_t)number);
		expect_pattern("read-only attachment", readonly, PAGE, 70 + (uint64_t)number);
		expect_errno("write-protection cannot be lifted", EACCES,
			     mprotect(readonly, PAGE, PROT_READ | PROT_WRITE));
		board->to_child = number;
		expect_int("parent sees the child's write", number,
			   await(&board->to_parent, number));
		expect_pattern("parent's view", again + 4 * PAGE, PAGE + 100,
			       80 + (uint64_t)number);

		there = MUST(shmat(idle, NULL, 0));
		expect_zero("first page of the idle one", there, PAGE);
		expect_pattern("content of the idle one", there + PAGE, PAGE, 61);
		expect_ok("shmdt", shmdt(there));
		specimen_await(1);
	}
	expect_ok("shmdt of the second attachment", shmdt(again));
	expect_ok("shmdt of the read-only attachment", shmdt(readonly));
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	struct shmid_ds now;
	expect_ok("IPC_STAT", shmctl(id, IPC_STAT, &now));
	expect_int("attachments at the end", 1, (long long)now.shm_nattch);
	if (locked)
		expect_ok("SHM_UNLOCK", shmctl(id, SHM_UNLOCK, NULL));
	return specimen_end();
}
