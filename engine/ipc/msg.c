/*
 * msg.c - System V message queues (msgget(2), msgop(2)). Messages are looked at with MSG_COPY, which
 * takes none.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>

#include "engine/dump.h"
#include "engine/ipc/ipc.h"
#include "engine/restore.h"
#include "store/scope.h"

#define WHAT "System V message queue"

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

const struct other_kind kind_sysv_msg = {
	.name = "sysv_msg",
	.keeps = "queues that the tree uses or alone could: number, key, owner, capacity, messages "
		 "with their "
		 "types in order, who sent and received last; waiters go on waiting",
	.refuses = "at a restore: a number or key that another queue has, a queue that others have "
		   "used since",
	.shown_by = "ipc_msg* ipc",
};

struct buffer { /* what msgop(2) calls struct msgbuf */
	long type;
	char text[];
};

/* --- dump --------------------------------------------------------------------------- */

static int add_message(image_message_queue *queue, const struct buffer *buffer, size_t size,
		       struct fsnap_error *err)
{
	image_ipc_message *messages = grow(queue->messages.messages_val,
					   queue->messages.messages_len, sizeof(*messages), err);
	if (!messages)
		return -1;
	queue->messages.messages_val = messages;
	image_ipc_message *message = &messages[queue->messages.messages_len];
	*message = (image_ipc_message){ .type = buffer->type, .text.text_val = malloc(size + 1) };
	if (!message->text.text_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
	memcpy(message->text.text_val, buffer->text, size);
	message->text.text_len = (u_int)size;
	queue->messages.messages_len++;
	return 0;
}

/* CONFIG_CHECKPOINT_RESTORE; a message longer than kernel.msgmax allows now cannot be copied. */
static int copy_messages(image_message_queue *queue, const struct msqid_ds *ds,
			 struct fsnap_error *err)
{
	size_t size = ds->__msg_cbytes;
	cleanup_free struct buffer *buffer = malloc(sizeof(*buffer) + size + 1);
	if (!buffer)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
	for (unsigned long i = 0; i < ds->msg_qnum; i++) {
		ssize_t n = msgrcv(queue->perm.id, buffer, size, (long)i, MSG_COPY | IPC_NOWAIT);
		if (n < 0 && errno == ENOMSG)
			return 0; /* somebody outside took it */
		if (n < 0) {
			fail(err, FSNAP_E_UNSUPPORTED, errno, WHAT " %d: message %lu",
			     queue->perm.id, i);
			return error_hint(
				err,
				"its messages are read with MSG_COPY, for which the kernel needs "
				"CONFIG_CHECKPOINT_RESTORE, and kernel.msgmax room for each");
		}
		if (add_message(queue, buffer, (size_t)n, err) < 0)
			return -1;
	}
	return 0;
}

static bool is_ours(struct dump *dump, image_message_queue *queue, const struct msqid_ds *ds)
{
	queue->certain = ipc_awaited(dump, queue->perm.id, SYS_msgrcv, SYS_msgsnd) ||
			 ipc_was_there(dump, ds->msg_lspid, ds->msg_stime) ||
			 ipc_was_there(dump, ds->msg_lrpid, ds->msg_rtime);
	return queue->certain ||
	       (!ipc_stranger(dump, ds->msg_lspid) && !ipc_stranger(dump, ds->msg_lrpid) &&
		ipc_could_be(dump, &ds->msg_perm, ds->msg_ctime));
}

int msg_list(struct dump *dump, struct fsnap_error *err)
{
	struct msginfo info;
	int last = msgctl(0, MSG_INFO, (struct msqid_ds *)&info);
	if (last < 0 || info.msgpool == 0)
		return 0;
	for (int i = 0; i <= last; i++) {
		struct msqid_ds ds;
		int id = msgctl(i, MSG_STAT_ANY, &ds);
		if (id < 0)
			continue;
		image_message_queue queue = {
			.perm = ipc_perm(id, &ds.msg_perm),
			.qbytes = ds.msg_qbytes,
			.lspid = ds.msg_lspid,
			.lrpid = ds.msg_lrpid,
		};
		if (!is_ours(dump, &queue, &ds))
			continue;
		image_ipc *ipc = &dump->ipc;
		image_message_queue *queues =
			grow(ipc->queues.queues_val, ipc->queues.queues_len, sizeof(*queues), err);
		if (!queues)
			return -1;
		ipc->queues.queues_val = queues;
		queues[ipc->queues.queues_len] = queue;
		if (copy_messages(&queues[ipc->queues.queues_len++], &ds, err) < 0)
			return -1;
	}
	return 0;
}

/* --- restore -------------------------------------------------------------------------- */

static int create(void *arg)
{
	const image_message_queue *queue = arg;
	int result = ipc_choose_id("msg", queue->perm.id);
	if (result < 0)
		return result;
	int id = msgget((key_t)queue->perm.key, IPC_CREAT | IPC_EXCL | (int)queue->perm.mode);
	if (id < 0)
		return -errno;
	if (id == queue->perm.id)
		return 0;
	msgctl(id, IPC_RMID, NULL);
	return -EEXIST;
}

/* Is it what the tree left behind? */
static int adopt(const image_message_queue *queue, const struct msqid_ds *ds,
		 struct fsnap_error *err)
{
	int users[2] = { ds->msg_lspid, ds->msg_lrpid };
	if ((unsigned)ds->msg_perm.__key != queue->perm.key)
		return ipc_in_use(WHAT, &queue->perm, "is another one", err);
	for (int i = 0; i < 2; i++) {
		if (users[i] <= 0 || users[i] == queue->lspid || users[i] == queue->lrpid ||
		    !ipc_alive(users[i]))
			continue;
		char how[64];
		snprintf(how, sizeof(how), "process %d has used it since the dump", users[i]);
		return ipc_in_use(WHAT, &queue->perm, how, err);
	}
	return 0;
}

static int own(const image_message_queue *queue, uint64_t qbytes, struct fsnap_error *err)
{
	struct msqid_ds ds = { .msg_perm = { .uid = queue->perm.uid,
					     .gid = queue->perm.gid,
					     .mode = (unsigned short)queue->perm.mode },
			       .msg_qbytes = qbytes };
	if (msgctl(queue->perm.id, IPC_SET, &ds) == 0)
		return 0;
	fail(err, FSNAP_E_RESTORE_STEP, errno, WHAT " %d: a capacity of %lu bytes", queue->perm.id,
	     (unsigned long)qbytes);
	return error_hint(err, "raise the limit: sysctl kernel.msgmnb");
}

/* Whatever is in it, and one of our own if nothing is: the caller has received last. */
static int receive_all(void *arg)
{
	const image_message_queue *queue = arg;
	struct {
		long type;
	} empty = { 1 };
	if (msgsnd(queue->perm.id, &empty, 0, IPC_NOWAIT) < 0 && errno != EAGAIN)
		return -errno;
	while (msgrcv(queue->perm.id, &empty, 0, 0, IPC_NOWAIT | MSG_NOERROR) >= 0)
		;
	return errno == ENOMSG ? 0 : -errno;
}

static int send_all(void *arg)
{
	const image_message_queue *queue = arg;
	size_t most = 0;
	for (u_int i = 0; i < queue->messages.messages_len; i++)
		if (queue->messages.messages_val[i].text.text_len > most)
			most = queue->messages.messages_val[i].text.text_len;
	cleanup_free struct buffer *buffer = malloc(sizeof(*buffer) + most);
	if (!buffer)
		return -ENOMEM;
	for (u_int i = 0; i < queue->messages.messages_len; i++) {
		const image_ipc_message *message = &queue->messages.messages_val[i];
		buffer->type = message->type;
		if (message->text.text_len)
			memcpy(buffer->text, message->text.text_val, message->text.text_len);
		if (msgsnd(queue->perm.id, buffer, message->text.text_len, IPC_NOWAIT) < 0)
			return -errno;
	}
	return 0;
}

/* Capacity may have been lowered below what is inside. */
static uint64_t room(const image_message_queue *queue)
{
	uint64_t bytes = 0, n = queue->messages.messages_len;
	for (u_int i = 0; i < queue->messages.messages_len; i++)
		bytes += queue->messages.messages_val[i].text.text_len;
	bytes = bytes > n ? bytes : n;
	return bytes + 1 > queue->qbytes ? bytes + 1 : queue->qbytes;
}

static int fill(const image_message_queue *queue, bool used, struct fsnap_error *err)
{
	int result = 0;
	if (queue->lrpid || used)
		result = ipc_as(queue->lrpid, -1u, -1u, receive_all, (void *)queue);
	if (result == 0 && queue->messages.messages_len)
		result = ipc_as(queue->lspid, -1u, -1u, send_all, (void *)queue);
	if (result == 0)
		return 0;
	fail(err, FSNAP_E_RESTORE_STEP, -result, WHAT " %d: its messages", queue->perm.id);
	return error_hint(
		err, "raise the limits that `ipcs -ql` shows: sysctl kernel.msgmax, kernel.msgmnb");
}

static void remove_queue(const char *name)
{
	struct msqid_ds ds;
	unsigned key;
	int id = ipc_named(name, &key);
	if (msgctl(id, IPC_STAT, &ds) == 0 && (unsigned)ds.msg_perm.__key == key)
		msgctl(id, IPC_RMID, NULL);
}

static int make(struct restore *restore, const image_message_queue *queue, struct fsnap_error *err)
{
	struct msqid_ds ds;
	bool found = msgctl(queue->perm.id, IPC_STAT, &ds) == 0, used = found && (ds.msg_stime || ds.msg_rtime);
	if (found) {
		if (adopt(queue, &ds, err) < 0)
			return -1;
		restore_note(restore,
			     WHAT " %d was still there: its messages are those of the image",
			     queue->perm.id);
	} else {
		ipc_takes_back(restore, &queue->perm, queue->perm.key, remove_queue);
		int result = ipc_as(0, queue->perm.cuid, queue->perm.cgid, create, (void *)queue);
		if (result < 0) {
			restore_not_made(restore);
			return ipc_not_made(WHAT, &queue->perm, -result, err);
		}
	}
	uint64_t needed = room(queue);
	if (own(queue, needed, err) < 0 || fill(queue, used, err) < 0)
		return -1;
	return needed == queue->qbytes ? 0 : own(queue, queue->qbytes, err);
}

int msg_make_all(struct restore *restore, struct fsnap_error *err)
{
	const image_ipc *ipc = &restore->model.ipc;
	for (u_int i = 0; i < ipc->queues.queues_len; i++) {
		const image_message_queue *queue = &ipc->queues.queues_val[i];
		struct fsnap_error why = { 0 };
		if (make(restore, queue, &why) < 0 &&
		    ipc_leave_alone(restore, queue->certain, &why, err) < 0)
			return -1;
	}
	return 0;
}
