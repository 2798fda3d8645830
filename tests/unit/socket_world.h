/*
 * socket_world.h - what tests of sockets are made of, on top of kinds_world.h.
 */
#ifndef TESTS_UNIT_SOCKET_WORLD_H
#define TESTS_UNIT_SOCKET_WORLD_H

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "kinds_world.h"

static inline int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);
	getsockopt(fd, level, name, &value, &size);
	return value;
}

static inline void set_option(int fd, int level, int name, int value)
{
	assert_int_equal(setsockopt(fd, level, name, &value, sizeof(value)), 0);
}

static inline void assert_receives(int fd, const char *expected)
{
	char seen[256] = "";
	ssize_t size = recv(fd, seen, sizeof(seen) - 1, MSG_DONTWAIT);
	seen[size < 0 ? 0 : size] = '\0';
	assert_string_equal(seen, expected);
}

static inline void assert_empty(int fd)
{
	char byte;
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static inline void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL), strlen(text));
}

#endif
