/*
 * What waited in a Unix socket is sent again, each message with its descriptors and
 * in the name of the process that had sent it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/errand.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define FSNAP_SO_BUF_LOCK 72

/* Room that a sender needs per message beside its bytes (struct sk_buff and its data's alignment). */
#define MESSAGE_COST 4096

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
	setsockopt(sender, SOL_SOCKET, FSNAP_SO_BUF_LOCK, &locks, sizeof(locks));
}

/* --- one message ----------------------------------------------------------------------- */

struct letter {
	const image_message *message;
	struct msghdr header;
	struct iovec data;
	int sender;
	int sys; /* 0: sent */
};

static size_t control_size(const image_message *message)
{
	size_t rights = message->rights.rights_len;
	return (message->pid ? CMSG_SPACE(sizeof(struct ucred)) : 0) +
	       (rights ? CMSG_SPACE(rights * sizeof(int)) : 0);
}

/* With descriptors of the workshop in the places of the image's. */
static int write_control(struct restore *restore, const image_message *message, struct msghdr *header)
{
	struct cmsghdr *at = CMSG_FIRSTHDR(header);
	size_t rights = message->rights.rights_len;
	if (message->pid) {
		struct ucred creds = {message->pid, message->uid, message->gid};
		*at = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(creds)), .cmsg_level = SOL_SOCKET,
				       .cmsg_type = SCM_CREDENTIALS};
		memcpy(CMSG_DATA(at), &creds, sizeof(creds));
		at = CMSG_NXTHDR(header, at);
	}
	if (!rights)
		return 0;
	*at = (struct cmsghdr){.cmsg_len = CMSG_LEN(rights * sizeof(int)), .cmsg_level = SOL_SOCKET,
			       .cmsg_type = SCM_RIGHTS};
	for (size_t i = 0; i < rights; i++) {
		int fd = restore_fd(restore, message->rights.rights_val[i]);
		memcpy(CMSG_DATA(at) + i * sizeof(fd), &fd, sizeof(fd));
		if (fd < 0) {
			errno = EBADF;
			return -1;
		}
	}
	return 0;
}

static void post(void *arg)
{
	struct letter *letter = arg;
	int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (letter->message->urgent ? MSG_OOB : 0);
	ssize_t sent = sendmsg(letter->sender, &letter->header, flags);
	letter->sys = sent < 0 ? errno : sent == (ssize_t)letter->data.iov_len ? 0 : EMSGSIZE;
}

/* The kernel lets us speak for another process only while one has that number. */
static int send_as(struct letter *letter)
{
	image_maker who = {.pid = letter->message->pid, .uid = geteuid(), .gid = getegid()};
	struct errand errand = {.who = &who, .root = -1, .work = post, .arg = letter};
	if (errand_run(&errand) != 0)
		letter->sys = ESRCH;
	return letter->sys;
}

/* 0 or errno. */
static int send_message(struct restore *restore, const image_message *message, int sender,
			const struct sockaddr *to, socklen_t to_size)
{
	size_t size = control_size(message);
	cleanup_free void *control = calloc(1, size ? size : 1);
	struct letter letter = {
		.message = message, .sender = sender,
		.data = {message->data.data_val, message->data.data_len},
		.header = {.msg_iovlen = 1, .msg_name = (void *)to, .msg_namelen = to_size,
			   .msg_control = control, .msg_controllen = size},
	};
	letter.header.msg_iov = &letter.data;
	if (!control)
		return ENOMEM;
	if (write_control(restore, message, &letter.header) < 0)
		return errno;
	post(&letter);
	if (!message->pid || (letter.sys != ESRCH && letter.sys != EPERM) || send_as(&letter) == 0)
		return letter.sys;
	restore_note(restore, "a message waiting in a Unix socket is from process %d no more, but from "
			      "fsnap (SCM_CREDENTIALS)", message->pid);
	image_message ours = *message;
	ours.pid = getpid();
	ours.uid = geteuid();
	ours.gid = getegid();
	write_control(restore, &ours, &letter.header);
	post(&letter);
	return letter.sys;
}

static int fill_failed(const struct unix_end *end, int sys, struct fsnap_error *err)
{
	return fail(err, FSNAP_E_RESTORE_STEP, sys, "file %u (%s): putting back what waits in a Unix socket",
		    end->file->id, end->file->label);
}

int unix_fill_stream(struct restore *restore, struct unix_end *end, int sender, struct fsnap_error *err)
{
	const image_file_unix *state = end->state;
	int before, sys = 0;
	if (!state->queue.queue_len)
		return 0;
	int widened = widen(sender, state, &before);
	for (unsigned i = 0; i < state->queue.queue_len && !sys; i++)
		sys = send_message(restore, &state->queue.queue_val[i], sender, NULL, 0);
	if (widened)
		narrow(sender, before);
	return sys ? fill_failed(end, sys, err) : 0;
}

int unix_fill_early(struct restore *restore, struct unix_end *listener, unsigned place, int sender,
		    struct fsnap_error *err)
{
	const image_file_unix *state = listener->state;
	for (unsigned i = 0; i < state->early.early_len; i++) {
		const image_early *early = &state->early.early_val[i];
		image_file_unix alone = {.queue = {1, (image_message *)&early->message}};
		if (early->place != place)
			continue;
		int before, widened = widen(sender, &alone, &before);
		int sys = send_message(restore, &early->message, sender, NULL, 0);
		if (widened)
			narrow(sender, before);
		if (sys)
			return fill_failed(listener, sys, err);
	}
	return 0;
}

/* --- datagrams to a name -------------------------------------------------------------------- */

/* A socket of that name which nobody has any more, or never had in our tree: the name is what the
 * receiver is told. It must not appear where the program's names are. */
static int stranger(struct restore *restore, struct unix_bench *bench, const image_message *message)
{
	image_file_unix named = {.type = SOCK_DGRAM,
				 .address = {message->from.from_len, message->from.from_val}};
	image_file none = {.label = (char *)""};
	struct fsnap_error ignored = {0};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || !message->from.from_len)
		return fd;
	if (unix_shadow_root(&bench->shadow) < 0 || unix_bind(&bench->shadow, &none, &named, fd, &ignored) < 0)
		restore_note(restore, "a datagram waiting in a Unix socket has lost its sender's name");
	return fd;
}

static int send_datagram(struct restore *restore, struct unix_bench *bench, const struct unix_end *end,
			 const image_message *message)
{
	const image_file_unix *state = end->state;
	image_file_unix like = {.address = {message->from.from_len, message->from.from_val}};
	struct unix_end *author = unix_end_named(bench, SOCK_DGRAM, &like, 0);
	int known = author ? restore_fd(restore, author->file->id) : -1;
	if (known >= 0 &&
	    send_message(restore, message, known, (const struct sockaddr *)state->address.address_val,
			 state->address.address_len) == 0)
		return 0;
	cleanup_fd int fd = stranger(restore, bench, message);
	image_file_unix alone = {.queue = {1, (image_message *)message}};
	int before;
	if (fd < 0 || unix_connect(&bench->shadow, fd, state) < 0)
		return errno;
	widen(fd, &alone, &before);
	return send_message(restore, message, fd, NULL, 0);
}

int unix_fill_datagrams(struct restore *restore, struct unix_bench *bench, struct unix_end *end,
			struct fsnap_error *err)
{
	const image_file_unix *state = end->state;
	for (unsigned i = 0; i < state->queue.queue_len; i++) {
		int sys = send_datagram(restore, bench, end, &state->queue.queue_val[i]);
		if (sys)
			return fill_failed(end, sys, err);
	}
	return 0;
}
