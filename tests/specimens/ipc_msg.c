/*
 * System V message queues: number, key, owner, capacity, who was last; messages of any length and
 * type in order, taken by type or from the front; a receiver that waited for a type of its own and a sender
 * that waited for room go on waiting. All of it was removed before the restore.
 *
 * harness: ipc=gone
 */
#include "specimen.h"

#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/wait.h>

enum { KEY = 0x5eed3001, LONG = 5000, CAPACITY = 4000 };

struct message {
	long type;
	char text[LONG];
};

static void send(int id, long type, size_t size, uint64_t seed)
{
	struct message m = { .type = type };
	pattern_fill(m.text, size, seed);
	MUST(msgsnd(id, &m, size, IPC_NOWAIT));
}

static void expect_message(int id, long wanted, long type, size_t size, uint64_t seed)
{
	struct message m = { 0 };
	if (!expect_int("length", (long long)size, msgrcv(id, &m, LONG, wanted, IPC_NOWAIT)))
		return;
	expect_int("type", type, m.type);
	expect_pattern("text", m.text, size, seed);
}

static void *wait_for_message(void *id)
{
	struct message m = { 0 };
	expect_int("the receiver's message", 30, msgrcv(*(int *)id, &m, LONG, 99, 0));
	expect_pattern("what it says", m.text, 30, 9);
	return NULL;
}

static void *wait_for_room(void *id)
{
	struct message m = { .type = 3 };
	pattern_fill(m.text, 100, 10);
	expect_ok("the sender's message", msgsnd(*(int *)id, &m, 100, 0));
	return NULL;
}

static void fill(int id)
{
	send(id, 5, LONG, 1);
	send(id, 1, 0, 0);
	send(id, 5, 1, 2);
	send(id, 0x7fffffffffff, 300, 3);
}

static void expect_content(int id)
{
	expect_message(id, -4, 1, 0, 0);
	expect_message(id, 5, 5, LONG, 1);
	expect_message(id, 0, 5, 1, 2);
	expect_message(id, 0x7fffffffffff, 0x7fffffffffff, 300, 3);
}

int main(void)
{
	MUST(msgctl(MUST(msgget(IPC_PRIVATE, 0600)), IPC_RMID, NULL));
	int id = MUST(msgget(KEY, IPC_CREAT | IPC_EXCL | 0640));
	int full = MUST(msgget(IPC_PRIVATE, 0600));
	int fresh = MUST(msgget(IPC_PRIVATE, 0600));
	struct msqid_ds facts, now;
	MUST(msgctl(full, IPC_STAT, &facts));
	facts.msg_qbytes = CAPACITY;
	MUST(msgctl(full, IPC_SET, &facts));
	/* Received last by somebody who is not there any more. */
	send(id, 1, 1, 0);
	pid_t gone = MUST(fork());
	if (gone == 0) {
		struct message m;
		_exit(msgrcv(id, &m, LONG, 0, 0) != 1);
	}
	MUST(waitpid(gone, NULL, 0));

	while (specimen_round()) {
		fill(id);
		send(full, 2, CAPACITY, 8);
		pthread_t receiver = start_blocked(wait_for_message, &id);
		pthread_t sender = start_blocked(wait_for_room, &full);
		struct msqid_ds before;
		MUST(msgctl(id, IPC_STAT, &before));
		specimen_ready();
		expect_int("id behind the key", id, msgget(KEY, 0));
		expect_ok("IPC_STAT", msgctl(id, IPC_STAT, &now));
		expect_hex("mode", 0640, now.msg_perm.mode);
		expect_int("creator", facts.msg_perm.cuid, now.msg_perm.cuid);
		expect_int("owner", facts.msg_perm.uid, now.msg_perm.uid);
		expect_int("messages", 4, (long long)now.msg_qnum);
		expect_int("who sent last", getpid(), now.msg_lspid);
		expect_int("who received last", before.msg_lrpid, now.msg_lrpid);
		expect_content(id);
		send(id, 99, 30, 9);
		MUST_ZERO(pthread_join(receiver, NULL));

		expect_ok("IPC_STAT", msgctl(full, IPC_STAT, &now));
		expect_int("capacity", CAPACITY, (long long)now.msg_qbytes);
		expect_int("nobody has got in", 1, (long long)now.msg_qnum);
		expect_message(full, 0, 2, CAPACITY, 8);
		MUST_ZERO(pthread_join(sender, NULL));
		expect_message(full, 0, 3, 100, 10);

		expect_ok("IPC_STAT of the fresh one", msgctl(fresh, IPC_STAT, &now));
		expect_int("sent to the fresh one", 0,
			   now.msg_lspid + now.msg_lrpid + now.msg_stime + now.msg_rtime);
	}
	return specimen_end();
}
