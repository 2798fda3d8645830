/*
 * What is waiting in a Unix socket, looked at without taking it.
 *
 * MSG_PEEK shows the first message; for those behind it, SO_PEEK_OFF is set for a
 * moment.  That is a setting of the socket: a fsnap killed in these microseconds
 * leaves it behind.  It is avoided where one look is enough, and a program that
 * does not peek never notices it.  A datagram of no bytes that was looked at
 * before this way (by an earlier dump) cannot be seen again.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define PEEK (MSG_PEEK | MSG_DONTWAIT)

/* Room that a sender needs per message beside its bytes (struct sk_buff and its data's alignment). */
#define MESSAGE_COST 4096

/* --- dump --------------------------------------------------------------------- */

/* Bytes of the next message; for a stream, of all that is there. -1 with errno: none. */
static ssize_t next_size(int fd, int type)
{
	int waiting = 0;
	if (type != SOCK_STREAM)
		return recv(fd, NULL, 0, PEEK | MSG_TRUNC);
	if (ioctl(fd, SIOCINQ, &waiting) < 0)
		return -1;
	errno = EAGAIN;
	return waiting ? waiting : -1;
}

static int peek_message(int fd, size_t size, image_file_unix *state, struct fsnap_error *err)
{
	image_message *message = append(state->queue, queue);
	char from[128];
	if (!message || !(message->data.data_val = malloc(size ? size : 1)))
		return no_memory(err);
	if (!size)
		return 0; /* asking for its size was the look */
	struct iovec part = {message->data.data_val, size};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_name = from,
				.msg_namelen = sizeof(from)};
	ssize_t got = recvmsg(fd, &header, PEEK);
	if (got <= 0)
		return fail(err, FSNAP_E_SYSTEM, got ? errno : 0, "looking into a Unix socket");
	message->data.data_len = (unsigned)got;
	if (state->type != SOCK_DGRAM || header.msg_namelen <= sizeof(sa_family_t))
		return 0;
	return set_bytes(&message->from.from_len, &message->from.from_val, from, header.msg_namelen,
			 err);
}

/* At the end of a packet stream, "closed" and "a packet of no bytes" look alike. */
static bool is_end(int fd, const image_file_unix *state, size_t seen)
{
	int waiting = 0;
	return state->type == SOCK_SEQPACKET && (state->shutdown & 1) &&
	       ioctl(fd, SIOCINQ, &waiting) == 0 && seen >= (size_t)waiting;
}

/* Everything behind the first `seen` bytes, with SO_PEEK_OFF set to that. */
static int peek_all(const struct fd_view *fd, image_file_unix *state, size_t seen,
		    struct fsnap_error *err)
{
	for (;;) {
		ssize_t size = next_size(fd->dup, state->type);
		if (state->type == SOCK_STREAM)
			size = size > (ssize_t)seen ? size - (ssize_t)seen : -1;
		if (size < 0 || (size == 0 && is_end(fd->dup, state, seen)))
			return 0;
		if (peek_message(fd->dup, (size_t)size, state, err) < 0)
			return -1;
		seen += state->queue.queue_val[state->queue.queue_len - 1].data.data_len;
	}
}

static bool has_bytes(int fd)
{
	int waiting = 0;
	return ioctl(fd, SIOCINQ, &waiting) == 0 && waiting;
}

int unix_save_queue(const struct fd_view *fd, image_file_unix *state, struct fsnap_error *err)
{
	uint64_t descriptors = 0;
	struct pollfd poll_fd = {.fd = fd->dup, .events = POLLIN};
	poll(&poll_fd, 1, 0);
	if (fdinfo_number(fd->info, "scm_fds", 10, &descriptors) && descriptors)
		return refuse_fd(fd, err, "Dump when the receiver has taken them.",
				 "%llu descriptors under way in a Unix socket",
				 (unsigned long long)descriptors);
	if (!(poll_fd.revents & POLLIN))
		return 0;
	/* A look at packets would take a pending error (ECONNRESET) away. */
	if (state->type != SOCK_STREAM && (poll_fd.revents & POLLERR)) {
		if (!has_bytes(fd->dup))
			return 0;
		return refuse_fd(fd, err, "Dump again when the program has received them.",
				 "a Unix socket with packets and an error to be told");
	}

	int start = 0, before = socket_int(fd->dup, SO_PEEK_OFF);
	if (state->type == SOCK_STREAM && before < 0) {
		ssize_t size = next_size(fd->dup, state->type);
		if (size < 0)
			return 0;
		if (peek_message(fd->dup, (size_t)size, state, err) < 0)
			return -1;
		start = (int)state->queue.queue_val[0].data.data_len;
		if (start == size)
			return 0; /* in one look: the usual case */
	}
	if (setsockopt(fd->dup, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start)) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "looking into a Unix socket");
	int result = peek_all(fd, state, (size_t)start, err);
	setsockopt(fd->dup, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof(before));
	return result;
}

/* --- restore -------------------------------------------------------------------- */

/* What the queue held may be more than a fresh sender may have under way. Returns whether the
 * buffer was changed; then unlocking it gives its size back to the kernel's rule. */
static int widen(int sender, const image_file_unix *state, int *before)
{
	size_t need = 0;
	for (unsigned i = 0; i < state->queue.queue_len; i++)
		need += 2 * (size_t)state->queue.queue_val[i].data.data_len + MESSAGE_COST;
	*before = socket_int(sender, SO_SNDBUF);
	if (need < (size_t)*before / 2)
		return 0;
	int wide = need > INT32_MAX / 2 ? INT32_MAX / 2 : (int)need;
	if (setsockopt(sender, SOL_SOCKET, SO_SNDBUFFORCE, &wide, sizeof(wide)) < 0)
		setsockopt(sender, SOL_SOCKET, SO_SNDBUF, &wide, sizeof(wide));
	return 1;
}

static void narrow(int sender, int before)
{
	int half = before / 2, locks = 0;
	setsockopt(sender, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
	setsockopt(sender, SOL_SOCKET, 72 /* SO_BUF_LOCK */, &locks, sizeof(locks));
}

/* The restored socket that is bound to the sender's address. */
static int find_sender(struct restore *restore, const image_message *message)
{
	image_file_unix named = {.address = {message->from.from_len, message->from.from_val}};
	const image_file *file;
	const image_file_unix *other;
	for (size_t i = 0; (other = restore_file_state(restore, "unix", i, &file)); i++)
		if (other->type == SOCK_DGRAM && unix_same_name(other, &named))
			return restore_fd(restore, file->id);
	return -1;
}

static int send_message(struct restore *restore, const image_file_unix *state, int sender,
			const image_message *message)
{
	const unsigned flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	const void *data = message->data.data_val;
	size_t size = message->data.data_len;
	if (!restore)
		return send(sender, data, size, flags) == (ssize_t)size ? 0 : -1;
	const struct sockaddr *to = (const struct sockaddr *)state->address.address_val;
	socklen_t to_size = state->address.address_len;
	int author = find_sender(restore, message);
	if (author >= 0 && sendto(author, data, size, flags, to, to_size) == (ssize_t)size)
		return 0;
	if (message->from.from_len)
		restore_note(restore, "a datagram waiting in a Unix socket has lost its sender's name");
	return sendto(sender, data, size, flags, to, to_size) == (ssize_t)size ? 0 : -1;
}

int unix_fill_queue(struct restore *restore, const image_file *file, const image_file_unix *state,
		    int receiver, int sender, struct fsnap_error *err)
{
	int before, result = 0, on = 1, off = 0;
	if (!state->queue.queue_len)
		return 0;
	int widened = widen(sender, state, &before);
	/* So that the messages carry credentials, should the receiver ask for them. */
	setsockopt(receiver, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	for (unsigned i = 0; i < state->queue.queue_len && !result; i++)
		result = send_message(restore, state, sender, &state->queue.queue_val[i]);
	if (result < 0)
		fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: putting back what waits in a Unix socket",
		     file->id);
	setsockopt(receiver, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
	if (widened)
		narrow(sender, before);
	return result;
}
