/*
 * Those that wait to be accepted by a listener.
 *
 * The other end of such a connection exists already, in the listener's queue, and
 * what the client sends lies there.  But it has no descriptor before accept(2),
 * which cannot be taken back: so it is looked at in the kernel's memory (peek_skb.h).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/peek_skb.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { MOST_BYTES = 1 << 24 };

enum where {
	SOCKET_SK, SK_QUEUE, SKB_SK, SKB_CB, CB_PID, CB_UID, CB_GID, CB_FP, PID_LEVEL, PID_NUMBERS, OOB, WHERES,
};

struct look {
	struct peek *peek;
	struct peek_member at[WHERES];
	struct peek_skbs skbs;
};

static bool prepare(struct look *look, struct dump *dump)
{
	*look = (struct look){.peek = dump_peek(dump), .at = {
		[SOCKET_SK] = {"socket", "sk", 0},
		[SK_QUEUE] = {"sock", "sk_receive_queue", 0},
		[SKB_SK] = {"sk_buff", "sk", 0},
		[SKB_CB] = {"sk_buff", "cb", 0},
		[CB_PID] = {"unix_skb_parms", "pid", 0},
		[CB_UID] = {"unix_skb_parms", "uid", 0},
		[CB_GID] = {"unix_skb_parms", "gid", 0},
		[CB_FP] = {"unix_skb_parms", "fp", 0},
		[PID_LEVEL] = {"pid", "level", 0},
		[PID_NUMBERS] = {"pid", "numbers", 0},
		[OOB] = {"unix_sock", "oob_skb", 0},
	}};
	if (!look->peek)
		return false;
	if (!peek_layout(look->peek, look->at, OOB) || !peek_skbs(&look->skbs, look->peek))
		return false;
	if (!peek_layout(look->peek, &look->at[OOB], 1))
		look->at[OOB].offset = 0; /* no CONFIG_AF_UNIX_OOB */
	return true;
}

static uint64_t word(const struct look *look, uint64_t address, enum where where)
{
	return address ? peek_word(look->peek, address, look->at[where].offset) : 0;
}

static uint32_t half(const struct look *look, uint64_t address, enum where where)
{
	return peek_half(look->peek, address, look->at[where].offset);
}

/* Whom it is from, as seen from where that process lives. */
static void copy_author(const struct look *look, uint64_t skb, image_message *message)
{
	uint64_t cb = skb + look->at[SKB_CB].offset, pid = word(look, cb, CB_PID);
	if (!pid)
		return;
	uint64_t numbers = pid + look->at[PID_NUMBERS].offset;
	message->pid = (int)peek_half(look->peek, numbers, half(look, pid, PID_LEVEL) * 16); /* struct upid */
	message->uid = half(look, cb, CB_UID);
	message->gid = half(look, cb, CB_GID);
}

static bool copy_message(struct look *look, uint64_t skb, image_file_unix *listener, unsigned place)
{
	uint32_t size = peek_skb_size(&look->skbs, skb);
	if (size > MOST_BYTES || word(look, skb + look->at[SKB_CB].offset, CB_FP))
		return false;
	image_early *early = append(listener->early, early);
	char *data = early ? malloc(size ? size : 1) : NULL;
	if (!data)
		return false;
	early->place = place;
	early->message.data.data_val = data;
	early->message.data.data_len = size;
	copy_author(look, skb, &early->message);
	return peek_skb_bytes(&look->skbs, skb, 0, data, size);
}

/* All that waits in the queue of a connection's other end. */
static bool copy_queue(struct look *look, uint64_t sk, image_file_unix *listener, unsigned place)
{
	uint64_t head = sk + look->at[SK_QUEUE].offset, skb = peek_skb_first(&look->skbs, head);
	if (look->at[OOB].offset && word(look, sk, OOB))
		return false;
	for (; skb && skb != head; skb = peek_skb_next(&look->skbs, skb))
		if (!copy_message(look, skb, listener, place))
			return false;
	return skb == head;
}

/* Their order is that of `waiting`: both come from the same queue. */
static bool look_at_all(struct dump *dump, int fd, image_file_unix *listener)
{
	struct look look;
	uint64_t file = prepare(&look, dump) ? peek_private(look.peek, fd) : 0;
	uint64_t head = word(&look, file, SOCKET_SK) + look.at[SK_QUEUE].offset, skb;
	unsigned place = 0;
	if (!file)
		return false;
	for (skb = peek_skb_first(&look.skbs, head); skb && skb != head; skb = peek_skb_next(&look.skbs, skb))
		if (!copy_queue(&look, word(&look, skb, SKB_SK), listener, place++))
			return false;
	return place == listener->waiting.waiting_len;
}

static int listener_fd(struct dump *dump, const image_file *file)
{
	pid_t pid;
	int fd;
	dump_holder(dump, file, &pid, &fd);
	cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

int unix_save_waiting(struct unix_scratch *scratch, image_file_unix *listener, struct fsnap_error *err)
{
	size_t n;
	const struct unix_facts *waiting = unix_waiting(scratch, listener->ino, &n);
	if (!n)
		return 0;
	if (!(listener->waiting.waiting_val = calloc(n, sizeof(u_quad_t))))
		return no_memory(err);
	listener->waiting.waiting_len = (unsigned)n;
	for (size_t i = 0; i < n; i++)
		listener->waiting.waiting_val[i] = waiting[i].peer;
	return 0;
}

/* Strangers are left out, with what they have sent. */
static void leave_out_others(struct dump *dump, struct unix_scratch *scratch, image_file_unix *listener)
{
	unsigned kept = 0, early = 0, next = 0;
	for (unsigned i = 0; i < listener->waiting.waiting_len; i++) {
		u_quad_t client = listener->waiting.waiting_val[i];
		bool known = !client || unix_saved_as(scratch, client);
		for (; next < listener->early.early_len && listener->early.early_val[next].place == i; next++) {
			image_early one = listener->early.early_val[next];
			one.place = kept;
			if (known)
				listener->early.early_val[early++] = one;
			else
				xdr_free((xdrproc_t)xdr_image_early, (char *)&one);
		}
		if (known)
			listener->waiting.waiting_val[kept++] = client;
		else
			dump_note(dump, "connections of other processes that wait to be accepted are not in the image");
	}
	listener->waiting.waiting_len = kept;
	listener->early.early_len = early;
}

static void forget_early(image_file_unix *listener)
{
	while (listener->early.early_len)
		xdr_free((xdrproc_t)xdr_image_early,
			 (char *)&listener->early.early_val[--listener->early.early_len]);
}

int unix_settle_waiting(struct dump *dump, struct unix_scratch *scratch, const image_file *file,
			image_file_unix *listener, struct fsnap_error *err)
{
	bool sent = false, closed = false;
	for (unsigned i = 0; i < listener->waiting.waiting_len; i++) {
		u_quad_t client = listener->waiting.waiting_val[i];
		closed |= !client;
		sent |= client && unix_has_sent(scratch, client);
	}
	if (sent || closed) {
		cleanup_fd int fd = listener_fd(dump, file);
		bool seen = fd >= 0 && look_at_all(dump, fd, listener);
		if (!seen && sent)
			return refuse_file(dump, file, err, "Dump when the connection has been accepted, or as root.",
					   "data sent on a connection that is not accepted yet, where this kernel "
					   "does not let us look");
		if (!seen) {
			forget_early(listener);
			dump_note(dump, "a connection that its client has closed before it was accepted will be "
					"one that nothing was sent on");
		}
	}
	leave_out_others(dump, scratch, listener);
	return 0;
}
