/*
 * Those that wait to be accepted by a listener.
 *
 * The other end of such a connection exists already, in the listener's queue, and
 * what the client sends lies there.  But it has no descriptor before accept(2),
 * which cannot be taken back: so it is looked at in the kernel's memory (peek.h).
 * In its queue are struct sk_buff, whose bytes are first at `data` and then in pages.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/peek.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { PAGE = 4096, PAGE_STRUCT = 64, MOST_BYTES = 1 << 24, MOST_PARTS = 64 };

enum where {
	SOCKET_SK, SK_QUEUE, SK_NEXT, SKB_NEXT, SKB_SK, SKB_LEN, SKB_DATA_LEN, SKB_DATA, SKB_HEAD, SKB_END, SKB_CB,
	CB_PID, CB_UID, CB_GID, CB_FP, PID_LEVEL, PID_NUMBERS, PARTS, FIRST_PART, OOB, WHERES,
};

struct look {
	struct peek *peek;
	struct peek_member at[WHERES];
	uint64_t pages, memory; /* vmemmap_base, page_offset_base; 0: not looked for yet */
};

/*
 * Where the kernel sees a page that it names by its struct page: memory + number * 4096, with the
 * number from pages + number * 64.  Both bases are chosen at boot in steps of a gigabyte
 * (arch/x86/mm/kaslr.c) and shown to nobody.  A page of our own, in a pipe, tells when they are found.
 */
static void find_memory(struct look *look)
{
	static const uint64_t step = 1ull << 30;
	struct peek_member at[] = {{"pipe_inode_info", "bufs", 0}, {"pipe_buffer", "page", 0}};
	char token[32], seen[sizeof(token)];
	int ends[2];
	if (getrandom(token, sizeof(token), 0) != sizeof(token) || pipe2(ends, O_CLOEXEC) < 0)
		return;
	cleanup_fd int reader = ends[0], writer = ends[1];
	uint64_t pipe = peek_private(look->peek, reader), page = 0;
	if (write(writer, token, sizeof(token)) == sizeof(token) && pipe && peek_layout(look->peek, at, 2))
		page = peek_word(look->peek, peek_word(look->peek, pipe, at[0].offset), at[1].offset);
	/* Devices have a hole of addresses within the memory: a few steps more. */
	uint64_t steps = (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE / step + 8;
	for (uint64_t i = 0; page && i <= steps; i++) {
		for (uint64_t j = 0; j <= steps / 64; j++) {
			uint64_t memory = (pipe & ~(step - 1)) - i * step, pages = (page & ~(step - 1)) - j * step;
			uint64_t there = memory + (page - pages) / PAGE_STRUCT * PAGE;
			if (!peek_bytes(look->peek, there, seen, sizeof(seen)) || memcmp(seen, token, sizeof(seen)))
				continue;
			look->memory = memory;
			look->pages = pages;
			return;
		}
	}
}

static bool prepare(struct look *look, struct dump *dump)
{
	*look = (struct look){.peek = dump_peek(dump), .at = {
		[SOCKET_SK] = {"socket", "sk", 0},
		[SK_QUEUE] = {"sock", "sk_receive_queue", 0},
		[SK_NEXT] = {"sk_buff_head", "next", 0},
		[SKB_NEXT] = {"sk_buff", "next", 0},
		[SKB_SK] = {"sk_buff", "sk", 0},
		[SKB_LEN] = {"sk_buff", "len", 0},
		[SKB_DATA_LEN] = {"sk_buff", "data_len", 0},
		[SKB_DATA] = {"sk_buff", "data", 0},
		[SKB_HEAD] = {"sk_buff", "head", 0},
		[SKB_END] = {"sk_buff", "end", 0},
		[SKB_CB] = {"sk_buff", "cb", 0},
		[CB_PID] = {"unix_skb_parms", "pid", 0},
		[CB_UID] = {"unix_skb_parms", "uid", 0},
		[CB_GID] = {"unix_skb_parms", "gid", 0},
		[CB_FP] = {"unix_skb_parms", "fp", 0},
		[PID_LEVEL] = {"pid", "level", 0},
		[PID_NUMBERS] = {"pid", "numbers", 0},
		[PARTS] = {"skb_shared_info", "nr_frags", 0},
		[FIRST_PART] = {"skb_shared_info", "frags", 0},
		[OOB] = {"unix_sock", "oob_skb", 0},
	}};
	if (!look->peek)
		return false;
	if (!peek_layout(look->peek, look->at, OOB))
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

/* The bytes in pages: skb_frag_t is a page, a length, an offset (include/linux/skbuff.h). */
static bool copy_parts(struct look *look, uint64_t skb, char *to, size_t size)
{
	uint64_t info = word(look, skb, SKB_HEAD) + half(look, skb, SKB_END);
	uint8_t n = 0;
	struct {
		uint64_t page;
		uint32_t length, offset;
	} part;
	if (!size)
		return true;
	if (!look->memory)
		find_memory(look);
	if (!look->memory || !peek_bytes(look->peek, info + look->at[PARTS].offset, &n, 1) || n > MOST_PARTS)
		return false;
	for (uint8_t i = 0; i < n; i++) {
		uint64_t at = info + look->at[FIRST_PART].offset + i * sizeof(part);
		if (!peek_bytes(look->peek, at, &part, sizeof(part)) || part.length > size)
			return false;
		uint64_t from = look->memory + (part.page - look->pages) / PAGE_STRUCT * PAGE + part.offset;
		if (!peek_bytes(look->peek, from, to, part.length))
			return false;
		to += part.length;
		size -= part.length;
	}
	return size == 0;
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
	uint32_t size = half(look, skb, SKB_LEN), apart = half(look, skb, SKB_DATA_LEN);
	if (size > MOST_BYTES || apart > size || word(look, skb + look->at[SKB_CB].offset, CB_FP))
		return false;
	image_early *early = append(listener->early, early);
	char *data = early ? malloc(size ? size : 1) : NULL;
	if (!data)
		return false;
	early->place = place;
	early->message.data.data_val = data;
	early->message.data.data_len = size;
	copy_author(look, skb, &early->message);
	return (size == apart || peek_bytes(look->peek, word(look, skb, SKB_DATA), data, size - apart)) &&
	       copy_parts(look, skb, data + size - apart, apart);
}

/* All that waits in the queue of a connection's other end. */
static bool copy_queue(struct look *look, uint64_t sk, image_file_unix *listener, unsigned place)
{
	uint64_t head = sk + look->at[SK_QUEUE].offset, skb = word(look, head, SK_NEXT);
	if (look->at[OOB].offset && word(look, sk, OOB))
		return false;
	for (; skb && skb != head; skb = word(look, skb, SKB_NEXT))
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
	for (skb = word(&look, head, SK_NEXT); skb && skb != head; skb = word(&look, skb, SKB_NEXT))
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
