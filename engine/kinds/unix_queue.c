/*
 * What is waiting in a Unix socket, looked at without taking it.
 *
 * MSG_PEEK shows the first message; for those behind it, SO_PEEK_OFF is set for a
 * moment, and SO_PASSCRED so that messages say whom they are from.  These are
 * settings of the socket, so the look is one that outlives us (steadfast.h).
 * Descriptors in a message are installed here by each look, and known again by
 * kcmp(2).  A datagram of no bytes that was looked at before this way (by an
 * earlier dump) cannot be seen again (net/core/datagram.c: skb->peeked).
 *
 * In a stream, the kernel glues messages together for whoever reads, but never
 * two with different credentials, and nothing behind one with descriptors
 * (unix_stream_read_generic() in net/unix/af_unix.c).  So each look ends where the
 * reader's would, and what remains to be found is where the message begins that
 * has the descriptors.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "engine/steadfast.h"
#include "store/scope.h"

#define PEEK (MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
#define FSNAP_SCM_PIDFD 4

/* Descriptors of one message (SCM_MAX_FD in net/core/scm.c) and whatever else may come along. */
#define MAX_RIGHTS 253
#define CONTROL_ROOM (CMSG_SPACE(MAX_RIGHTS * sizeof(int)) + 1024)

/* Where SO_PASSCRED is on and a message has no credentials, the kernel says nobody. */
#define NOBODY 65534

struct look {
	const struct fd_view *fd;
	image_file_unix *state;
	char *buffer;
	size_t room;
	size_t seen; /* bytes before what is looked at next */
	size_t total; /* stream: bytes there are */
};

/* One message as it was peeked at. */
struct peeked {
	ssize_t size; /* -1 with errno: none */
	int rights[MAX_RIGHTS];
	unsigned n_rights;
	struct ucred from;
	char name[128];
	socklen_t name_size;
	bool longer; /* than the buffer */
};

static int set(int fd, int name, int value)
{
	return setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value));
}

/* Takes what the message carried; descriptors are ours to close. */
static void take_control(struct msghdr *header, struct peeked *peeked)
{
	for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
		size_t size = at->cmsg_len - CMSG_LEN(0);
		if (at->cmsg_level != SOL_SOCKET)
			continue;
		if (at->cmsg_type == SCM_RIGHTS) {
			peeked->n_rights = (unsigned)(size / sizeof(int));
			memcpy(peeked->rights, CMSG_DATA(at), size);
		} else if (at->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&peeked->from, CMSG_DATA(at), sizeof(peeked->from));
		} else if (at->cmsg_type == FSNAP_SCM_PIDFD) {
			int pidfd;
			memcpy(&pidfd, CMSG_DATA(at), sizeof(pidfd));
			if (pidfd >= 0)
				close(pidfd);
		}
	}
}

static void peek(const struct look *look, struct peeked *peeked)
{
	_Alignas(struct cmsghdr) char control[CONTROL_ROOM];
	struct iovec part = {look->buffer, look->room};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_name = peeked->name,
				.msg_namelen = sizeof(peeked->name), .msg_control = control,
				.msg_controllen = sizeof(control)};
	peeked->n_rights = 0;
	peeked->from = (struct ucred){0};
	peeked->size = recvmsg(look->fd->dup, &header, PEEK);
	if (peeked->size < 0)
		return;
	peeked->name_size = header.msg_namelen;
	peeked->longer = header.msg_flags & MSG_TRUNC;
	take_control(&header, peeked);
}

/* --- messages with descriptors ----------------------------------------------------- */

static void close_rights(struct peeked *peeked)
{
	while (peeked->n_rights)
		close(peeked->rights[--peeked->n_rights]);
}

/*
 * Of `size` bytes in one look at a stream, the last message has descriptors: where it begins.
 *
 * Looking at fewer bytes does not help: with MSG_PEEK the kernel goes on to the next message when it
 * has given all that was asked for, and finds its descriptors.  But it copies message by message, and
 * stops before one that cannot be copied whole.  So it is offered room for all bytes but the last.
 */
static size_t begin_of_rights(const struct look *look, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (size + page - 1) / page * page;
	char *area = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return 0;
	mprotect(area + room, page, PROT_NONE);
	struct look short_of_one = *look;
	struct peeked peeked;
	short_of_one.buffer = area + room - (size - 1);
	short_of_one.room = size;
	set(look->fd->dup, SO_PEEK_OFF, (int)look->seen);
	peek(&short_of_one, &peeked);
	close_rights(&peeked);
	munmap(area, room + page);
	return peeked.size > 0 ? (size_t)peeked.size : 0; /* EFAULT: at once */
}

static int add_rights(const struct look *look, image_message *message, struct peeked *peeked,
		      struct fsnap_error *err)
{
	unsigned n = peeked->n_rights, done = 0;
	message->rights.rights_val = calloc(n ? n : 1, sizeof(unsigned));
	while (message->rights.rights_val && done < n) {
		/* It is dump_received()'s now, whatever becomes of it. */
		unsigned id = dump_received(look->fd, peeked->rights[done++], err);
		if (!id)
			break;
		message->rights.rights_val[message->rights.rights_len++] = id;
	}
	while (done < n)
		close(peeked->rights[done++]);
	if (!message->rights.rights_val)
		return no_memory(err);
	return message->rights.rights_len == n ? 0 : -1;
}

/* --- one message after the other ---------------------------------------------------- */

static image_message *add_message(const struct look *look, const char *data, size_t size,
				  const struct peeked *peeked, struct fsnap_error *err)
{
	image_message *message = append(look->state->queue, queue);
	if (!message) {
		no_memory(err);
		return NULL;
	}
	if (peeked->from.pid || peeked->from.uid != NOBODY) {
		message->pid = peeked->from.pid;
		message->uid = peeked->from.uid;
		message->gid = peeked->from.gid;
	}
	if (set_bytes(&message->data.data_len, &message->data.data_val, data, size, err) < 0)
		return NULL;
	if (look->state->type != SOCK_DGRAM || peeked->name_size <= sizeof(sa_family_t))
		return message;
	return set_bytes(&message->from.from_len, &message->from.from_val, peeked->name,
			 peeked->name_size, err) < 0 ? NULL : message;
}

/* `data` points into the look's buffer, which the search for descriptors overwrites. */
static int keep(struct look *look, struct peeked *peeked, struct fsnap_error *err)
{
	size_t size = (size_t)peeked->size, plain = 0;
	cleanup_free char *copy = NULL;
	const char *data = look->buffer;
	if (peeked->n_rights && look->state->type == SOCK_STREAM) {
		if (!(data = copy = malloc(size)))
			return no_memory(err);
		memcpy(copy, look->buffer, size);
		plain = begin_of_rights(look, size);
	}
	if (plain && !add_message(look, data, plain, peeked, err))
		return -1;
	image_message *message = add_message(look, data + plain, size - plain, peeked, err);
	if (!message)
		return -1;
	if (!peeked->n_rights)
		return 0;
	/* Saving one of them may look into this very queue's list no more: it is complete but for this. */
	unsigned index = look->state->queue.queue_len - 1;
	image_message with = *message;
	int result = add_rights(look, &with, peeked, err);
	look->state->queue.queue_val[index] = with;
	return result;
}

/* At the end of a packet stream, "closed" and "a packet of no bytes" look alike. */
static bool is_end(const struct look *look, const struct peeked *peeked)
{
	int waiting = 0;
	if (peeked->size)
		return false;
	if (look->state->type == SOCK_STREAM)
		return true;
	return look->state->type == SOCK_SEQPACKET && (look->state->shutdown & 1) &&
	       ioctl(look->fd->dup, SIOCINQ, &waiting) == 0 && look->seen >= (size_t)waiting;
}

static int widen(struct look *look, size_t room, struct fsnap_error *err)
{
	char *wider = realloc(look->buffer, room);
	if (!wider)
		return no_memory(err);
	look->buffer = wider;
	look->room = room;
	return 0;
}

/* Everything from here on. SO_PEEK_OFF moves along by itself, but for the search for descriptors. */
static int peek_all(struct look *look, struct fsnap_error *err)
{
	for (;;) {
		struct peeked peeked;
		if (look->state->type == SOCK_STREAM && look->seen >= look->total)
			return 0;
		if (set(look->fd->dup, SO_PEEK_OFF, (int)look->seen) < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "looking into a Unix socket");
		peek(look, &peeked);
		if (peeked.size < 0 && errno != EAGAIN)
			return fail(err, FSNAP_E_SYSTEM, errno, "looking into a Unix socket");
		if (peeked.size < 0 || is_end(look, &peeked))
			return 0;
		if (peeked.longer) {
			close_rights(&peeked);
			if (widen(look, look->room * 4, err) < 0)
				return -1;
			continue;
		}
		if (keep(look, &peeked, err) < 0)
			return -1;
		look->seen += (size_t)peeked.size;
	}
}

/* Usually one look shows a whole stream, and SO_PEEK_OFF need not be touched. */
static int peek_stream(struct look *look, struct fsnap_error *err)
{
	int waiting = 0;
	if (ioctl(look->fd->dup, SIOCINQ, &waiting) < 0 || !waiting)
		return 0;
	look->total = (size_t)waiting;
	if (widen(look, look->total, err) < 0)
		return -1;
	struct peeked peeked;
	peek(look, &peeked);
	if (peeked.size <= 0)
		return 0;
	if (keep(look, &peeked, err) < 0)
		return -1;
	look->seen = (size_t)peeked.size;
	return look->seen < look->total ? peek_all(look, err) : 0;
}

static int peek_packets(struct look *look, struct fsnap_error *err)
{
	return widen(look, 65536, err) < 0 ? -1 : peek_all(look, err);
}

/* --- out-of-band ----------------------------------------------------------------------- */

/* Cuts the message that byte `at` of the stream is in, so that this byte is one of its own. */
static int cut_out(image_file_unix *state, size_t at, struct fsnap_error *err)
{
	for (unsigned i = 0; i < state->queue.queue_len; i++) {
		image_message *message = &state->queue.queue_val[i];
		if (at >= message->data.data_len) {
			at -= message->data.data_len;
			continue;
		}
		image_message all = *message, part = all;
		part.data.data_val = NULL;
		part.rights.rights_len = 0;
		part.rights.rights_val = NULL;
		size_t ends[] = {at, at + 1, all.data.data_len}, from = 0;
		for (int j = 0; j < 3; from = ends[j++]) {
			if (ends[j] == from)
				continue;
			if (from && !(message = append(state->queue, queue)))
				return no_memory(err);
			if (from) { /* to its place behind the one before */
				memmove(&state->queue.queue_val[i + 2], &state->queue.queue_val[i + 1],
					(state->queue.queue_len - i - 2) * sizeof(part));
				message = &state->queue.queue_val[++i];
			} else {
				part.rights = all.rights; /* the first has them */
			}
			*message = part;
			message->urgent = from == at && ends[j] == at + 1;
			if (set_bytes(&message->data.data_len, &message->data.data_val,
				      all.data.data_val + from, ends[j] - from, err) < 0)
				return -1;
			part.rights.rights_len = 0;
			part.rights.rights_val = NULL;
		}
		free(all.data.data_val);
		return 0;
	}
	return 0;
}

/*
 * The byte of MSG_OOB is one of the stream; with SO_OOBINLINE on, it is seen there, and a look ends
 * before it (manage_oob() in net/unix/af_unix.c).  So it is at the beginning, or where a look
 * ended for no other reason.
 */
static int find_mark(const struct look *look, char byte, struct fsnap_error *err)
{
	const image_file_unix *state = look->state;
	int at_mark = 0;
	size_t at = 0, found = 0, candidates = 0;
	ioctl(look->fd->dup, SIOCATMARK, &at_mark);
	if (at_mark)
		return cut_out(look->state, 0, err);
	for (unsigned i = 1; i < state->queue.queue_len; i++) {
		at += state->queue.queue_val[i - 1].data.data_len;
		if (state->queue.queue_val[i].data.data_val[0] != byte)
			continue;
		found = at;
		candidates++;
	}
	if (candidates == 1)
		return cut_out(look->state, found, err);
	return refuse_fd(look->fd, err, "Dump again when the program has received it.",
			 "an out-of-band byte whose place in the queue the kernel does not tell");
}

static int peek_urgent(struct look *look, struct fsnap_error *err)
{
	int fd = look->fd->dup, in_line = socket_int(fd, SO_OOBINLINE);
	char byte;
	set(fd, SO_OOBINLINE, 0); /* else the byte is not told apart */
	bool urgent = recv(fd, &byte, 1, PEEK | MSG_OOB) == 1;
	set(fd, SO_OOBINLINE, 1);
	int result = peek_stream(look, err);
	set(fd, SO_OOBINLINE, in_line);
	return result < 0 || !urgent ? result : find_mark(look, byte, err);
}

/* --- all ------------------------------------------------------------------------------------- */

static int peek_queue(const struct fd_view *fd, image_file_unix *state, bool urgent,
		      struct fsnap_error *err)
{
	struct look look = {.fd = fd, .state = state};
	int result = state->type != SOCK_STREAM ? peek_packets(&look, err) :
		     urgent		      ? peek_urgent(&look, err) :
						peek_stream(&look, err);
	free(look.buffer);
	return result;
}

struct looking {
	const struct fd_view *fd;
	image_file_unix *state;
	bool urgent;
	struct fsnap_error *err;
};

static int look_and_put_back(void *arg)
{
	struct looking *looking = arg;
	int fd = looking->fd->dup;
	int offset = socket_int(fd, SO_PEEK_OFF), creds = socket_int(fd, SO_PASSCRED);
	if (offset >= 0)
		set(fd, SO_PEEK_OFF, 0);
	set(fd, SO_PASSCRED, 1);
	int result = peek_queue(looking->fd, looking->state, looking->urgent, looking->err);
	set(fd, SO_PASSCRED, creds);
	set(fd, SO_PEEK_OFF, offset);
	return result;
}

int unix_save_queue(const struct fd_view *fd, image_file_unix *state, struct fsnap_error *err)
{
	struct pollfd poll_fd = {.fd = fd->dup, .events = POLLIN | POLLPRI};
	int waiting = 0;
	poll(&poll_fd, 1, 0);
	if (!(poll_fd.revents & (POLLIN | POLLPRI)))
		return 0;
	/* A look at packets would take a pending error (ECONNRESET) away. */
	if (state->type != SOCK_STREAM && (poll_fd.revents & POLLERR)) {
		if (ioctl(fd->dup, SIOCINQ, &waiting) < 0 || !waiting)
			return 0;
		return refuse_fd(fd, err, "Dump again when the program has received them.",
				 "a Unix socket with packets and an error to be told");
	}
	struct looking looking = {fd, state, poll_fd.revents & POLLPRI, err};
	return steadfast(look_and_put_back, &looking, err);
}
