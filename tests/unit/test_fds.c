/* What the kernel tells of all descriptors at once is what /proc/PID/fdinfo says of each. */
#include "bpf/fds.h" /* before cmocka makes a macro of fail */
#include "engine/kinds/kinds.h"
#include "engine/procfs.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "needs_reader.h"

static struct fsnap_error err;
static struct fds_reader *reader;

static int open_reader(void **state)
{
	(void)state;
	reader = fds_open(&err);
	return 0;
}

static int close_reader(void **state)
{
	(void)state;
	fds_close(reader);
	return 0;
}

static struct fds_told told_of(int fd)
{
	size_t n = 0, i = 0;
	const struct fds_told *told = fds_tell(reader, getpid(), &n);
	assert_non_null(told);
	while (i < n && told[i].fd != (unsigned)fd)
		i++;
	assert_true(i < n);
	return told[i];
}

static void check(int fd, bool plain)
{
	char name[64];
	uint64_t flags = 0, pos = 0, more = 0;
	assert_true(fd >= 0);
	struct fds_told told = told_of(fd);
	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	char *info = procfs_read_once(AT_FDCWD, name, NULL, &err);
	assert_non_null(info);
	assert_true(fdinfo_number(info, "flags", 8, &flags));
	assert_true(fdinfo_number(info, "pos", 10, &pos));
	assert_int_equal(told.flags, flags);
	assert_int_equal(told.pos, pos);
	assert_int_equal(told.plain, plain);
	for (const char *at = info; (at = strchr(at, '\n')); at++)
		more++;
	if (plain) /* pos, flags, mnt_id, and ino from Linux 5.14 on */
		assert_true(more == 3 || more == 4);
	free(info);
	close(fd);
}

static void test_same_as_fdinfo(void **state)
{
	(void)state;
	NEEDS_READER();
	int pipes[2], pair[2], file = open("/proc/self/exe", O_RDONLY);
	assert_int_equal(lseek(file, 12345, SEEK_SET), 12345);
	check(file, true);
	check(open("/proc/self/exe", O_RDONLY | O_CLOEXEC | O_NOATIME), true);
	check(open("/dev/null", O_RDWR | O_NONBLOCK | O_APPEND), true);
	check(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), true);
	assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	check(pipes[0], true);
	check(pipes[1], true);
	check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), true);
	check(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), true);
	check(dup2(0, 300), true); /* beyond the first words of flags */
	check(fcntl(0, F_DUPFD_CLOEXEC, 400), true);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	check(pair[0], false);
	check(pair[1], false);
	check(eventfd(3, EFD_CLOEXEC), false);
	check(epoll_create1(0), false);
}

static void test_locks(void **state)
{
	(void)state;
	NEEDS_READER();
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int sock = socket(AF_INET, SOCK_STREAM, 0), memory = memfd_create("locked", 0);
	assert_true(told_of(memory).plain && told_of(sock).plain);
	assert_int_equal(fcntl(memory, F_SETLK, &whole), 0);
	assert_false(told_of(memory).plain);
	close(memory);
	assert_int_equal(flock(sock, LOCK_EX), 0);
	assert_false(told_of(sock).plain);
	close(sock);
}

static void test_more_than_there_is_room_for(void **state)
{
	(void)state;
	NEEDS_READER();
	size_t n;
	int last = -1;
	while (last < (int)FDS_MOST + 64 && (last = dup(0)) >= 0)
		;
	bool all = last >= (int)FDS_MOST + 64;
	const struct fds_told *told = fds_tell(reader, getpid(), &n);
	for (int fd = 100; fd <= (int)FDS_MOST + 64; fd++)
		close(fd);
	if (!all)
		skip(); /* RLIMIT_NOFILE */
	assert_null(told);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_fdinfo),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_more_than_there_is_room_for),
	};
	return cmocka_run_group_tests(tests, open_reader, close_reader);
}
