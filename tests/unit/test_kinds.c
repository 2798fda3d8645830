/*
 * test_kinds.c - files, pipes and event descriptors: what a program sees after they were saved
 * and made again.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <termios.h>

#include "kinds_world.h"

static void set_nonblock(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void assert_reads(int fd, const char *expected)
{
	char seen[256] = "";
	set_nonblock(fd);
	ssize_t size = read(fd, seen, sizeof(seen) - 1);
	seen[size < 0 ? 0 : size] = '\0';
	assert_string_equal(seen, expected);
}

/* --- files ---------------------------------------------------------------------- */

static char *scratch_file(char *path, const char *content)
{
	strcpy(path, "/tmp/fsnap-kinds-XXXXXX");
	int fd = mkstemp(path);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	close(fd);
	return path;
}

static void regular_file_goes_on_where_it_was(void **state)
{
	(void)state;
	char path[64];
	int fd = open(scratch_file(path, "one two three"), O_RDWR | O_APPEND | O_CREAT, 0600);
	lseek(fd, 4, SEEK_SET);
	int flags = fcntl(fd, F_GETFL);
	world_round(1, &fd);
	assert_int_equal(fcntl(fd, F_GETFL), flags);
	assert_reads(fd, "two three");
	unlink(path);
}

static void deleted_file_and_memfd_keep_content(void **state)
{
	(void)state;
	char path[64];
	int fds[] = {open(scratch_file(path, "gone"), O_RDONLY), memfd_create("m", 0)};
	unlink(path);
	assert_int_equal(write(fds[1], "memory", 6), 6);
	lseek(fds[1], 3, SEEK_SET);
	world_round(2, fds);
	assert_string_equal(world.files[1].file.kind, "memfd");
	assert_reads(fds[0], "gone");
	assert_reads(fds[1], "ory");
}

static void locks_of_the_description_come_back(void **state)
{
	(void)state;
	char path[64];
	int fd = open(scratch_file(path, "0123456789"), O_RDWR), rival;
	struct flock range = {.l_type = F_WRLCK, .l_start = 2, .l_len = 3};
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &range), 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	world_round(1, &fd);
	rival = open(path, O_RDWR);
	assert_int_equal(flock(rival, LOCK_SH | LOCK_NB), -1);
	range = (struct flock){.l_type = F_RDLCK};
	assert_int_equal(fcntl(rival, F_OFD_GETLK, &range), 0);
	assert_int_equal(range.l_start, 2);
	assert_int_equal(range.l_len, 3);
	close(rival);
	unlink(path);
}

static void lease_on_a_deleted_file_is_refused(void **state)
{
	(void)state;
	char path[64];
	int fd = open(scratch_file(path, "x"), O_RDONLY);
	assert_int_equal(fcntl(fd, F_SETLEASE, F_RDLCK), 0);
	unlink(path);
	assert_int_equal(world_save(1, &fd), -1);
	assert_int_equal(world_error.code, FSNAP_E_UNSUPPORTED);
	assert_non_null(strstr(world_error.message, "lease"));
}

static void devices_and_directories(void **state)
{
	(void)state;
	int fds[] = {open("/dev/zero", O_RDONLY), open("/usr", O_RDONLY | O_DIRECTORY),
		     open("/usr", O_PATH)};
	char byte = 1;
	world_round(3, fds);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(faccessat(fds[1], "bin", F_OK, 0), 0);
	assert_int_equal(faccessat(fds[2], "bin", F_OK, 0), 0);
}

static void refused_by_name(void **state)
{
	(void)state;
	int fd = (int)syscall(430 /* fsopen */, "tmpfs", 0);
	if (fd < 0)
		skip();
	assert_int_equal(world_save(1, &fd), -1);
	assert_int_equal(world_error.code, FSNAP_E_UNSUPPORTED);
	assert_non_null(strstr(world_error.message, "fsopen"));
	assert_true(world_error.hint[0]);
}

static void inotify_keeps_numbers_and_events(void **state)
{
	(void)state;
	char directory[] = "/tmp/fsnap-kinds-XXXXXX", path[64], buffer[512];
	assert_non_null(mkdtemp(directory));
	int fd = inotify_init1(IN_NONBLOCK);
	inotify_rm_watch(fd, inotify_add_watch(fd, "/", IN_CREATE));
	assert_int_equal(read(fd, buffer, sizeof(buffer)), sizeof(struct inotify_event));
	int wd = inotify_add_watch(fd, directory, IN_CREATE | IN_DELETE);
	snprintf(path, sizeof(path), "%s/made", directory);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	unlink(path);
	world_round(1, &fd);
	const struct inotify_event *event = (const void *)buffer;
	assert_int_equal(read(fd, buffer, 32), 32);
	assert_int_equal(event->wd, wd);
	assert_int_equal(event->mask, IN_CREATE);
	assert_string_equal(event->name, "made");
	assert_int_equal(read(fd, buffer, 32), 32);
	assert_int_equal(event->mask, IN_DELETE);
	assert_int_equal(inotify_add_watch(fd, directory, IN_CREATE), wd);
	assert_int_equal(inotify_add_watch(fd, "/", IN_CREATE), wd + 1);
	rmdir(directory);
}

/* --- pipes ------------------------------------------------------------------------ */

static void pipe_keeps_content_and_capacity(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	fcntl(fds[1], F_SETPIPE_SZ, 1 << 18);
	assert_int_equal(write(fds[1], "first ", 6), 6);
	assert_int_equal(write(fds[1], "second", 6), 6);
	check(world_save(2, fds));
	assert_reads(fds[0], "first second"); /* the original has lost nothing */
	world_close();
	check(world_make());
	assert_int_equal(fcntl(fds[0], F_GETPIPE_SZ), 1 << 18);
	assert_int_equal(fcntl(fds[0], F_GETFL), O_RDONLY | O_NONBLOCK);
	assert_int_equal(fcntl(fds[1], F_GETFL), O_WRONLY | O_NONBLOCK);
	assert_int_equal(write(fds[1], ", third", 7), 7);
	assert_reads(fds[0], "first second, third");
	close(fds[1]);
	assert_reads(fds[0], "");
}

static void pipe_in_many_pieces(void **state)
{
	(void)state;
	int fds[2], piece = 0;
	assert_int_equal(pipe2(fds, O_NONBLOCK | O_DIRECT), 0);
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
	static char page[4096];
	while (memset(page, 'a' + piece % 26, sizeof(page)), write(fds[1], page, sizeof(page)) > 0)
		piece++;
	assert_int_equal(piece, 256);
	world_round(2, fds);
	for (int i = 0; i < piece; i++) {
		assert_int_equal(read(fds[0], page, sizeof(page)), sizeof(page));
		assert_int_equal(page[17], 'a' + i % 26);
	}
	assert_int_equal(read(fds[0], page, 1), -1);
}

static void pipe_reopened_keeps_its_descriptions(void **state)
{
	(void)state;
	int fds[3];
	char path[64];
	assert_int_equal(pipe2(fds, 0), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
	fds[2] = open(path, O_RDONLY | O_NONBLOCK);
	assert_int_equal(write(fds[1], "ab", 2), 2);
	world_round(3, fds);
	assert_false(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	assert_reads(fds[2], "ab");
}

static void pipe_without_writer_ends(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe2(fds, 0), 0);
	assert_int_equal(write(fds[1], "rest", 4), 4);
	close(fds[1]);
	world_round(1, fds);
	assert_reads(fds[0], "rest");
	assert_int_equal(read(fds[0], &fds[1], 1), 0);
}

static void pipe_without_reader_breaks(void **state)
{
	(void)state;
	int fds[2];
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe2(fds, 0), 0);
	close(fds[0]);
	world_round(1, &fds[1]);
	assert_int_equal(write(fds[1], "x", 1), -1);
	assert_int_equal(errno, EPIPE);
}

static void pipe_to_the_outside_is_refused(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe2(fds, 0), 0);
	assert_int_equal(world_save(1, &fds[1]), -1);
	assert_int_equal(world_error.code, FSNAP_E_UNSUPPORTED);
	assert_non_null(strstr(world_error.message, "read end is held by a process outside"));
	close(fds[0]);
}

static void pipe_to_the_outside_as_stdio(void **state)
{
	(void)state;
	int fds[2], second;
	char path[64];
	assert_int_equal(pipe2(fds, 0), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[1]);
	second = open(path, O_WRONLY);
	int saved[] = {second, fds[1]}; /* another description of it goes along */
	world.stdio[2] = fds[1];
	world_round(2, saved);
	for (int i = 0; i < 2; i++) {
		struct stat own, made;
		fstat(2, &own);
		fstat(saved[i], &made);
		assert_string_equal(world.files[i].file.kind, "stdio");
		assert_int_equal(own.st_ino, made.st_ino);
	}
	close(fds[0]);
}

static void fifo_keeps_content(void **state)
{
	(void)state;
	char path[64];
	unlink(scratch_file(path, ""));
	assert_int_equal(mkfifo(path, 0600), 0);
	int fds[2] = {open(path, O_RDONLY | O_NONBLOCK), open(path, O_WRONLY)};
	assert_int_equal(write(fds[1], "queued", 6), 6);
	world_round(2, fds);
	assert_reads(fds[0], "queued");
	assert_int_equal(write(fds[1], "more", 4), 4);
	assert_reads(fds[0], "more");
	unlink(path);
}

/* --- terminals ---------------------------------------------------------------------- */

/* fds: the slave, the master. */
static void open_terminal(int fds[2])
{
	fds[1] = posix_openpt(O_RDWR | O_NOCTTY);
	if (fds[1] < 0 || grantpt(fds[1]) || unlockpt(fds[1])) {
		print_message("skipped: no pseudo-terminals here\n");
		skip();
	}
	fds[0] = open(ptsname(fds[1]), O_RDWR | O_NOCTTY);
}

static void terminal_of_somebody_else_becomes_stdio(void **state)
{
	(void)state;
	int fds[2];
	open_terminal(fds);
	check(world_save(1, fds));
	assert_string_equal(world.files[0].file.kind, "stdio");
	assert_int_equal(world.files[0].state.stdio.terminal, 1);
	assert_true(world.files[0].state.stdio.termios.termios_len > 0);
	close(fds[1]);
}

static void terminal_with_its_master_comes_back_whole(void **state)
{
	(void)state;
	int fds[2];
	struct termios settings;
	char line[32] = "";
	open_terminal(fds);
	assert_int_equal(tcgetattr(fds[0], &settings), 0);
	settings.c_lflag &= (unsigned)~ECHO;
	assert_int_equal(tcsetattr(fds[0], TCSANOW, &settings), 0);
	world_round(2, fds);
	assert_string_equal(world.files[0].file.kind, "pty");
	assert_int_equal(tcgetattr(fds[0], &settings), 0);
	assert_int_equal(settings.c_lflag & ECHO, 0);
	assert_int_equal(write(fds[1], "line\n", 5), 5);
	assert_int_equal(read(fds[0], line, sizeof(line)), 5);
	assert_int_equal(write(fds[0], "shown", 5), 5);
	assert_int_equal(read(fds[1], line, sizeof(line)), 5);
	assert_string_equal(world.notes, "");
}

static void terminal_that_others_have_is_noted(void **state)
{
	(void)state;
	int fds[2];
	open_terminal(fds);
	int other = open(ptsname(fds[1]), O_RDWR | O_NOCTTY);
	check(world_save(2, fds));
	if (dump_peek(&world))
		assert_non_null(strstr(world.notes, "outside the tree"));
	close(other);
}

/* --- event descriptors ---------------------------------------------------------------- */

static void eventfd_keeps_count(void **state)
{
	(void)state;
	int fds[2] = {eventfd(0, EFD_NONBLOCK), eventfd(3, EFD_SEMAPHORE)};
	uint64_t large = 0xfffffffffffffffeull, seen;
	assert_int_equal(write(fds[0], &large, 8), 8);
	world_round(2, fds);
	assert_int_equal(read(fds[0], &seen, 8), 8);
	assert_true(seen == large);
	assert_int_equal(read(fds[0], &seen, 8), -1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(read(fds[1], &seen, 8), 8);
		assert_int_equal(seen, 1);
	}
	set_nonblock(fds[1]);
	assert_int_equal(read(fds[1], &seen, 8), -1);
}

static void signalfd_keeps_its_set(void **state)
{
	(void)state;
	sigset_t set;
	struct signalfd_siginfo info;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMAX);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = signalfd(-1, &set, SFD_NONBLOCK);
	world_round(1, &fd);
	raise(SIGRTMAX);
	assert_int_equal(read(fd, &info, sizeof(info)), sizeof(info));
	assert_int_equal(info.ssi_signo, SIGRTMAX);
	assert_int_equal(read(fd, &info, sizeof(info)), -1);
}

static void timerfd_goes_on_with_what_remained(void **state)
{
	(void)state;
	struct itimerspec spec = {.it_value = {100, 0}, .it_interval = {7, 5}}, now;
	int fds[2] = {timerfd_create(CLOCK_MONOTONIC, 0), timerfd_create(CLOCK_REALTIME, 0)};
	timerfd_settime(fds[0], 0, &spec, NULL);
	struct timespec wall;
	clock_gettime(CLOCK_REALTIME, &wall);
	struct itimerspec soon = {.it_value = {wall.tv_sec + 50, 0}};
	timerfd_settime(fds[1], TFD_TIMER_ABSTIME, &soon, NULL);
	check(world_save(2, fds));
	usleep(30000);
	world_close();
	check(world_make());
	timerfd_gettime(fds[0], &now);
	assert_int_equal(now.it_value.tv_sec, 99);
	assert_true(now.it_value.tv_nsec > 980000000); /* the time in between does not count */
	assert_int_equal(now.it_interval.tv_nsec, 5);
	timerfd_gettime(fds[1], &now);
	clock_gettime(CLOCK_REALTIME, &wall);
	long long left = (soon.it_value.tv_sec - wall.tv_sec) * 1000000000ll - wall.tv_nsec;
	long long seen = now.it_value.tv_sec * 1000000000ll + now.it_value.tv_nsec;
	assert_true(llabs(left - seen) < 10000000); /* but for a time of day it does */
}

static void timerfd_keeps_expirations(void **state)
{
	(void)state;
	struct itimerspec once = {.it_value = {0, 1000}};
	struct itimerspec often = {.it_value = {0, 1000000}, .it_interval = {0, 1000000}};
	int fds[2] = {timerfd_create(CLOCK_MONOTONIC, 0), timerfd_create(CLOCK_MONOTONIC, 0)};
	uint64_t ticks;
	timerfd_settime(fds[0], 0, &once, NULL);
	timerfd_settime(fds[1], 0, &often, NULL);
	usleep(25000);
	check(world_save(2, fds));
	world_close();
	usleep(200000);
	check(world_make());
	assert_int_equal(read(fds[0], &ticks, 8), 8);
	assert_int_equal(ticks, 1);
	assert_int_equal(read(fds[1], &ticks, 8), 8);
	assert_in_range(ticks, 25, 150);
	set_nonblock(fds[0]);
	assert_int_equal(read(fds[0], &ticks, 8), -1);
}

/* --- epoll -------------------------------------------------------------------------------- */

static void epoll_watches_the_same_numbers(void **state)
{
	(void)state;
	/* The epoll instance first: its number is taken by other files while it is rebuilt. */
	int epoll = epoll_create1(0), quiet = eventfd(0, 0), ready = eventfd(1, 0);
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788};
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, ready, &event), 0);
	event = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.u64 = 2};
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, quiet, &event), 0);
	int fds[] = {epoll, quiet, ready};
	world_round(3, fds);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 1);
	assert_true(event.data.u64 == 0x1122334455667788);
	assert_int_equal(event.events, EPOLLIN);
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_DEL, ready, NULL), 0);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 0);
	uint64_t one = 1;
	assert_int_equal(write(quiet, &one, 8), 8);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 1);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 0); /* once per edge */
}

static void epoll_one_shot_stays_silent(void **state)
{
	(void)state;
	int epoll = epoll_create1(0), fired = eventfd(1, 0), armed = eventfd(0, 0);
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 1};
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, fired, &event), 0);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 1);
	event = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 2};
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, armed, &event), 0);
	int fds[] = {fired, epoll, armed};
	world_round(3, fds);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 0);
	uint64_t one = 1;
	assert_int_equal(write(armed, &one, 8), 8);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 1);
	assert_int_equal(event.data.u64, 2);
	event = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3};
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_MOD, fired, &event), 0);
	assert_int_equal(epoll_wait(epoll, &event, 1, 0), 1);
	assert_int_equal(event.data.u64, 3);
}

static void epoll_in_epoll_and_moved_targets(void **state)
{
	(void)state;
	int inner = epoll_create1(0), outer = epoll_create1(0), source = eventfd(0, 0);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = source};
	assert_int_equal(epoll_ctl(inner, EPOLL_CTL_ADD, source, &event), 0);
	assert_int_equal(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event), 0);
	/* The watched file now has another number; its old one is another file. */
	int moved = dup(source);
	close(source);
	assert_int_equal(eventfd(5, 0), source);
	int fds[] = {outer, inner, source, moved};
	world_round(4, fds);
	assert_int_equal(epoll_wait(outer, &event, 1, 0), 0);
	uint64_t one = 1;
	assert_int_equal(write(moved, &one, 8), 8);
	assert_int_equal(epoll_wait(outer, &event, 1, 0), 1);
}

static void epoll_of_a_lost_file_is_refused(void **state)
{
	(void)state;
	int epoll = epoll_create1(0), lost = eventfd(0, 0);
	struct epoll_event event = {.events = EPOLLIN};
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, lost, &event), 0);
	assert_int_equal(world_save(1, &epoll), -1);
	assert_int_equal(world_error.code, FSNAP_E_UNSUPPORTED);
	close(lost);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_world(regular_file_goes_on_where_it_was),
		in_world(deleted_file_and_memfd_keep_content),
		in_world(locks_of_the_description_come_back),
		in_world(lease_on_a_deleted_file_is_refused),
		in_world(devices_and_directories),
		in_world(refused_by_name),
		in_world(inotify_keeps_numbers_and_events),
		in_world(pipe_keeps_content_and_capacity),
		in_world(pipe_in_many_pieces),
		in_world(pipe_reopened_keeps_its_descriptions),
		in_world(pipe_without_writer_ends),
		in_world(pipe_without_reader_breaks),
		in_world(pipe_to_the_outside_is_refused),
		in_world(pipe_to_the_outside_as_stdio),
		in_world(fifo_keeps_content),
		in_world(terminal_of_somebody_else_becomes_stdio),
		in_world(terminal_with_its_master_comes_back_whole),
		in_world(terminal_that_others_have_is_noted),
		in_world(eventfd_keeps_count),
		in_world(signalfd_keeps_its_set),
		in_world(timerfd_goes_on_with_what_remained),
		in_world(timerfd_keeps_expirations),
		in_world(epoll_watches_the_same_numbers),
		in_world(epoll_one_shot_stays_silent),
		in_world(epoll_in_epoll_and_moved_targets),
		in_world(epoll_of_a_lost_file_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
