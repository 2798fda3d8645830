/*
 * template_line.c - sockets between `fsnap template` and who holds a template.
 */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/cli/template.h"
#include "store/scope.h"

#define BACKLOG 64
#define PATIENCE_S 5
#define NAME_MOST 80 /* of a socket; with what address_of() puts before it, sun_path is full */

int template_place(const char *store, bool make, struct fsnap_error *err)
{
	char path[4096];
	struct stat stat;

	snprintf(path, sizeof(path), "%s/templates", store);
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
		return fail(err, FSNAP_E_STORE_READONLY, errno, "making %s", path);
	cleanup_fd int place = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (place < 0 && !make)
		return -1;
	if (place < 0 || fstat(place, &stat) < 0)
		return fail(err, FSNAP_E_STORE_MISSING, errno, "%s", path);
	/* Who could put a socket there would be told of command lines and handed our streams. */
	if ((stat.st_uid != geteuid() && stat.st_uid != 0) || stat.st_mode & 022)
		return fail(err, FSNAP_E_PERMISSION, 0, "%s is not yours alone", path);
	return steal_fd(&place);
}

/* By way of /proc: the path of a store may be longer than a socket's name (unix(7)). */
static struct sockaddr_un address_of(int place, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%.*s", place, NAME_MOST, name);
	return address;
}

int template_connect(int place, const char *name)
{
	struct sockaddr_un address = address_of(place, name);
	if (strlen(name) > NAME_MOST) { /* a shorter one's socket would be reached */
		errno = ENAMETOOLONG;
		return -1;
	}
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	cleanup_fd int line = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	/* A stopped one takes calls until its backlog is full; then connect(2) would wait for ever. */
	if (line < 0 || setsockopt(line, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(line, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -1;
	return steal_fd(&line);
}

static int give_name(int place, const char *name, int line, struct fsnap_error *err)
{
	struct sockaddr_un address = address_of(place, name);
	cleanup_fd int other = template_connect(place, name);

	if (other >= 0 || errno == EAGAIN) {
		fail(err, FSNAP_E_IMAGE_EXISTS, 0, "there is a template %s", name);
		return error_hint(err, "stop it (fsnap template stop %s), or call this one otherwise: --name", name);
	}
	if (errno == ECONNREFUSED)
		unlinkat(place, name, 0); /* of one that was killed */
	if (line < 0 || bind(line, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(line, BACKLOG) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "the socket of template %s", name);
	return 0;
}

int template_listen(int place, const char *name, struct fsnap_error *err)
{
	if (strlen(name) > NAME_MOST) {
		fail(err, FSNAP_E_USAGE, 0, "template %s: its name is longer than %d characters", name, NAME_MOST);
		return error_hint(err, "call it otherwise: --name");
	}
	cleanup_fd int line = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	flock(place, LOCK_EX); /* who comes second finds this one listening, and nobody takes it for one that was killed */
	int result = give_name(place, name, line, err);
	flock(place, LOCK_UN);
	return result < 0 ? -1 : steal_fd(&line);
}

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(TEMPLATE_FDS * sizeof(int))];
};

bool template_send(int line, const void *bytes, size_t size, const int *fds, unsigned n_fds)
{
	union control control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					      .cmsg_len = CMSG_LEN(n_fds * sizeof(int)) } };
	struct iovec part = { (void *)bytes, size };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (n_fds) {
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	return sendmsg(line, &message, MSG_NOSIGNAL) == (ssize_t)size;
}

ssize_t template_receive(int line, void *bytes, size_t room, int *fds)
{
	union control control;
	struct iovec part = { bytes, room };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fds) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		for (int i = 0; i < TEMPLATE_FDS; i++)
			fds[i] = -1;
	}
	ssize_t got = recvmsg(line, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = got > 0 && fds ? CMSG_FIRSTHDR(&message) : NULL;
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
	return got;
}
