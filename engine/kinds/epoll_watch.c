/*
 * epoll_watch.c - a watch is added under the number that the program knows it by: for that moment the file stands
 * there, and whatever has the number here stands aside.
 */
#include "engine/kinds/epoll_watch.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "store/scope.h"

/* What stays of `events` when a one-shot watch has fired (fs/eventpoll.c, EP_PRIVATE_BITS). */
#define EP_PRIVATE ((unsigned)(EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE))

/* The soft limit of the restoring process may be lower than that of the saved one was. */
static int dup_to(int fd, int number)
{
	if (dup2(fd, number) == number)
		return number;
	struct rlimit old, wide = {.rlim_cur = (rlim_t)number + 1};
	if (errno != EBADF || getrlimit(RLIMIT_NOFILE, &old) < 0)
		return -1;
	wide.rlim_max = old.rlim_max > wide.rlim_cur ? old.rlim_max : wide.rlim_cur;
	if (setrlimit(RLIMIT_NOFILE, &wide) < 0)
		return -1;
	int moved = dup2(fd, number);
	int saved = errno;
	setrlimit(RLIMIT_NOFILE, &old);
	errno = saved;
	return moved;
}

/* A one-shot watch that had fired is silent until the program arms it again. Only firing makes
 * one so: it is offered everything, alone in the instance, and taken. */
static int silence(int epoll, const image_epoll_target *target)
{
	struct epoll_event all = {.events = (target->events & EP_PRIVATE) | EPOLLIN | EPOLLOUT |
					    EPOLLRDHUP | EPOLLPRI,
				  .data.u64 = target->data};
	struct epoll_event none = {.events = target->events, .data.u64 = target->data}, fired;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, target->fd, &all) < 0)
		return -1;
	if (epoll_wait(epoll, &fired, 1, 0) > 0)
		return 0;
	return epoll_ctl(epoll, EPOLL_CTL_MOD, target->fd, &none);
}

bool epoll_has_fired(const image_epoll_target *target)
{
	return (target->events & EPOLLONESHOT) && !(target->events & ~EP_PRIVATE);
}

static int watch_at_its_number(int epoll, const image_epoll_target *target)
{
	if (epoll_has_fired(target))
		return silence(epoll, target);
	struct epoll_event event = {.events = target->events, .data.u64 = target->data};
	return epoll_ctl(epoll, EPOLL_CTL_ADD, target->fd, &event);
}

int epoll_watch(int epoll, int file, const image_epoll_target *target)
{
	/* Whatever has the number here, the epoll instance and the file included, moves aside. */
	cleanup_fd int watcher = fcntl(epoll, F_DUPFD_CLOEXEC, target->fd + 1);
	cleanup_fd int aside = fcntl(target->fd, F_DUPFD_CLOEXEC, target->fd + 1);
	int flags = fcntl(target->fd, F_GETFD);
	if (watcher < 0)
		watcher = fcntl(epoll, F_DUPFD_CLOEXEC, 0); /* beyond the limit */
	if (watcher < 0 || (file != target->fd && dup_to(file, target->fd) < 0))
		return -1;
	int result = watch_at_its_number(watcher, target), saved = errno;
	if (file == target->fd)
		return result;
	if (aside >= 0) {
		dup2(aside, target->fd);
		fcntl(target->fd, F_SETFD, flags);
	} else {
		close(target->fd);
	}
	errno = saved;
	return result;
}
