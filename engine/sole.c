/*
 * The lock is an abstract Unix socket's name: it needs no place in a file system, whoever finds it taken is told by
 * whom, and it is free again when its holder dies, however that happens.
 */
#include "engine/sole.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "store/scope.h"

#define BACKLOG 64 /* who asks is never answered; that many may ask */

static socklen_t make_name(struct sockaddr_un *name, pid_t root)
{
	struct stat space = { 0 };
	stat("/proc/self/ns/pid", &space);
	*name = (struct sockaddr_un){ .sun_family = AF_UNIX };
	int length = snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1, "fsnap-restore-%llu-%d",
			      (unsigned long long)space.st_ino, root);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

/* Who listens there; its credentials are those it had when it began to. */
static struct ucred holder_of(const struct sockaddr_un *name, socklen_t size)
{
	struct ucred holder = { .uid = (uid_t)-1 };
	socklen_t length = sizeof(holder);
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)name, size) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &holder, &length) < 0)
		return (struct ucred){ .uid = errno == ECONNREFUSED || errno == EAGAIN ? geteuid() : (uid_t)-1 };
	return holder;
}

static int refuse(pid_t root, pid_t holder, struct fsnap_error *err)
{
	if (holder)
		fail(err, FSNAP_E_PID_TAKEN, 0, "the tree of process %d is being restored by process %d", root, holder);
	else
		fail(err, FSNAP_E_PID_TAKEN, 0, "the tree of process %d is being restored by another process", root);
	return error_hint(err, "wait for it, or end it; --new-pids makes a copy beside it");
}

int sole_begin(struct restore *restore, struct fsnap_error *err)
{
	struct sockaddr_un name;
	pid_t root = restore->model.tree.root_pid;
	socklen_t size = make_name(&name, root);
	if (restore->renumber.wanted)
		return 0;
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0; /* then without: what is in the way will show */
	if (bind(fd, (struct sockaddr *)&name, size) == 0) {
		listen(fd, BACKLOG);
		restore->sole = steal_fd(&fd);
		return 0;
	}
	if (errno != EADDRINUSE)
		return 0;
	/* Anybody may bind any such name: only root and we ourselves are believed. */
	struct ucred holder = holder_of(&name, size);
	return holder.uid == 0 || holder.uid == geteuid() ? refuse(root, holder.pid, err) : 0;
}

void sole_end(struct restore *restore)
{
	if (restore->sole >= 0)
		close(restore->sole);
	restore->sole = -1;
}
