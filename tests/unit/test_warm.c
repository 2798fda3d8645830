/*
 * What is prefetched, in which order, how fast, and for whom it waits.
 *
 * Shown: neighbours are merged, the hottest come first, what was used once beside them is left; files that are not what they were are left out and named;
 * a rate and a ceiling hold; a tree that reads something else is given way to, one that reads the list is not, and
 * full speed comes back after it.
 */
#include "engine/heat/fetch.h" /* before cmocka makes a macro of fail */
#include "engine/heat/heat.h"
#include "restorer/warm_pace.h"
#include "store/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_store.h"

#define PAGE 4096u

static struct fsnap_error err;

static int new_file(const char *name, size_t size)
{
	static char data[1 << 20];
	int fd = open(world_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	memset(data, 7, sizeof(data));
	for (size_t at = 0; at < size; at += sizeof(data))
		assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	/* As fetch.c opens it: no read-ahead but ours. */
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
	return fd;
}

/* --- the list -------------------------------------------------------------------------- */

static void put_heat_of(struct image_writer *writer, const char *name, off_t size, image_heat_run *runs, unsigned n)
{
	struct stat stat;
	int fd = new_file(name, 1 << 20);
	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(fstat(fd, &stat), 0);
	close(fd);
	image_heat heat = { .identity = { .path = (char *)world_path(name), .dev = stat.st_dev, .ino = stat.st_ino,
					  .size = (uint64_t)stat.st_size, .mode = stat.st_mode,
					  .mtime_ns = stat.st_mtim.tv_sec * 1000000000ll + stat.st_mtim.tv_nsec },
			    .source = HEAT_FOLIOS, .runs = { n, runs } };
	assert_int_equal(image_writer_put_hint(writer, IMAGE_HEAT, "heat", (xdrproc_t)xdr_image_heat, &heat, &err), 0);
}

static void put_heat(struct image_writer *writer, const char *name, image_heat_run *runs, unsigned n)
{
	put_heat_of(writer, name, 1 << 20, runs, n);
}

/* What was left out: "name: why" lines. */
static char skipped[2048];

static void note(void *unused, const char *path, const char *why)
{
	(void)unused;
	size_t at = strlen(skipped);
	snprintf(skipped + at, sizeof(skipped) - at, "%s: %s\n", strrchr(path, '/') + 1, why);
}

static struct image *written(struct store *store, struct image_writer *writer)
{
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	struct image *image = image_open(store, "heat", &err);
	assert_non_null(image);
	return image;
}

static void neighbours_are_merged(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "heat", 0, &err);
	/* 3 and 4 pages are left out between runs that are read as one, 10 between others; cold ones are not read. */
	image_heat_run first[] = { { 0, 2, 3 }, { 5, 1, 3 }, { 10, 2, 3 }, { 22, 3, 3 }, { 40, 4, 2 }, { 60, 9, 1 } };
	image_heat_run second[] = { { 0, 8, 2 }, { 100, 8, 3 } };
	put_heat(writer, "first", first, 6);
	put_heat(writer, "second", second, 2);
	struct image *image = written(store, writer);
	struct fetch fetch;
	assert_int_equal(fetch_plan(&fetch, image, FSNAP_PREFETCH_HOT, NULL, true, note, NULL, &err), 0);
	static const struct {
		unsigned page, pages;
	} expected[] = { { 0, 12 }, { 22, 3 }, { 100, 8 }, { 40, 4 }, { 0, 8 } };
	assert_int_equal(fetch.n, 5);
	for (size_t i = 0; i < fetch.n; i++) {
		assert_int_equal(fetch.stretches[i].offset, expected[i].page * PAGE);
		assert_int_equal(fetch.stretches[i].bytes, expected[i].pages * PAGE);
	}
	assert_true(fetch_needed(&fetch));
	fetch_free(&fetch);
	assert_int_equal(fetch_plan(&fetch, image, FSNAP_PREFETCH_ALL, NULL, true, note, NULL, &err), 0);
	assert_int_equal(fetch.n, 6);
	fetch_free(&fetch);
	image_close(image);
	store_close(store);
}

/* How many pages a plan asks for of a file of 64 MiB. */
static uint64_t planned(image_heat_run *runs, unsigned n, int which)
{
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "heat", 0, &err);
	put_heat_of(writer, "file", 64 << 20, runs, n);
	struct image *image = written(store, writer);
	struct fetch fetch;
	assert_int_equal(fetch_plan(&fetch, image, which, NULL, true, note, NULL, &err), 0);
	uint64_t pages = fetch.bytes / PAGE;
	fetch_free(&fetch);
	image_close(image);
	assert_int_equal(store_remove(store, "heat", &err), 0);
	store_close(store);
	return pages;
}

static void pages_used_once_beside_hot_ones_are_left(void **state)
{
	(void)state;
	image_heat_run passed_over[] = { { 0, 8000, 2 }, { 8000, 100, 3 } };
	image_heat_run small[] = { { 0, 1000, 2 }, { 8000, 100, 3 } };
	assert_int_equal(planned(passed_over, 2, FSNAP_PREFETCH_HOT), 100);
	assert_int_equal(planned(passed_over, 2, FSNAP_PREFETCH_WARM), 8100);
	assert_int_equal(planned(passed_over, 1, FSNAP_PREFETCH_HOT), 8000);
	assert_int_equal(planned(small, 2, FSNAP_PREFETCH_HOT), 1100);
}

static void replace(const char *name, mode_t mode, dev_t dev)
{
	assert_int_equal(unlink(world_path(name)), 0);
	if (mode == S_IFLNK)
		assert_int_equal(symlink("sound", world_path(name)), 0);
	else if (mode == S_IFDIR)
		assert_int_equal(mkdir(world_path(name), 0700), 0);
	else if (mode)
		assert_int_equal(mknod(world_path(name), mode | 0600, dev), 0);
}

static void changed_files_are_left_out(void **state)
{
	(void)state;
	static const char *const names[] = { "sound", "gone", "shrunk", "grown", "touched", "replaced", "fifo",
					     "device", "socket", "directory", "link", "unreadable" };
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "heat", 0, &err);
	image_heat_run run = { 0, 4, 3 }, behind = { 250, 20, 3 }, back[] = { { 8, 4, 3 }, { 2, 4, 3 } };
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		put_heat(writer, names[i], &run, 1);
	put_heat(writer, "behind", &behind, 1);
	put_heat(writer, "back", back, 2);
	struct image *image = written(store, writer);
	replace("gone", 0, 0);
	assert_int_equal(truncate(world_path("shrunk"), 4096), 0);
	assert_int_equal(truncate(world_path("grown"), 2 << 20), 0);
	assert_int_equal(utimensat(AT_FDCWD, world_path("touched"), NULL, 0), 0);
	replace("replaced", 0, 0);
	close(new_file("replaced", 1 << 20));
	replace("fifo", S_IFIFO, 0);
	replace("device", S_IFCHR, makedev(1, 5)); /* without an end */
	replace("socket", S_IFSOCK, 0);
	replace("directory", S_IFDIR, 0);
	replace("link", S_IFLNK, 0);
	assert_int_equal(chmod(world, 0755), 0);
	assert_int_equal(chmod(world_path("unreadable"), 0), 0);
	for (size_t i = 0; i < 6; i++)
		chmod(world_path(names[i]), 0644);
	bool root = geteuid() == 0;
	if (root)
		assert_int_equal(seteuid(1000), 0);

	struct fetch fetch;
	skipped[0] = '\0';
	assert_int_equal(fetch_plan(&fetch, image, FSNAP_PREFETCH_HOT, NULL, true, note, NULL, &err), 0);
	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(fetch.n, 1);
	static const char *const reasons[] = {
		"gone: it is gone\n", "shrunk: it has shrunk since\n", "grown: it has grown since\n",
		"touched: it was changed since\n", "replaced: it was changed since\n", "directory: ",
		"link: ", "unreadable: Permission denied\n", "fifo: ", "device: ", "socket: ",
		"behind: what the image says of it is impossible\n", "back: what the image says of it is impossible\n",
	};
	for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++)
		if (!strstr(skipped, reasons[i]))
			fail_msg("not said: %s; said: %s", reasons[i], skipped);
	assert_null(strstr(skipped, "sound"));
	fetch_free(&fetch);
	image_close(image);
	store_close(store);
}

/* --- how fast ----------------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void a_rate_holds(void **state)
{
	(void)state;
	int fd = new_file("file", 4 << 20);
	struct warm_stretch all = { fd, 0, 4 << 20 };
	struct warm_order order = { .stretches = &all, .n = 1, .rate = 10 << 20 };
	struct warm_progress progress = { 0 };
	assert_false(warm_present(&all, 0));
	double begin = seconds();
	warm_run(&order, &progress);
	double took = seconds() - begin;
	if (progress.scarce) {
		print_message("skipped: memory is scarce\n");
		close(fd);
		skip();
	}
	print_message("%lu read, %lu there, %lu failed, %.2f s\n", progress.read, progress.present, progress.failed, took);
	/* The last of sixteen begins when fifteen have been paid for. */
	assert_true(took > 0.35);
	assert_int_equal(progress.read + progress.present, 4 << 20);
	assert_true(warm_present(&all, 0));
	assert_int_equal(progress.done, 1);
	close(fd);
}

static void a_ceiling_holds(void **state)
{
	(void)state;
	int fd = new_file("file", 16 << 20);
	struct warm_stretch all = { fd, 0, 16 << 20 };
	/* Slow enough that it looks: what is on its way then comes on top. */
	struct warm_order order = { .stretches = &all, .n = 1, .ceiling = 1 << 20, .rate = 20 << 20 };
	struct warm_progress progress = { 0 };
	warm_run(&order, &progress);
	assert_int_equal(progress.scarce, 1);
	assert_true(progress.read <= 4 << 20);
	assert_int_equal(progress.total, 16 << 20);
	close(fd);
}

static void what_is_there_is_not_read(void **state)
{
	(void)state;
	static char data[1 << 20];
	int fd = new_file("file", 2 << 20);
	struct warm_stretch all = { fd, 0, 2 << 20 };
	struct warm_order order = { .stretches = &all, .n = 1 };
	struct warm_progress progress = { 0 };
	assert_int_equal(pread(fd, data, sizeof(data), 0), sizeof(data));
	warm_run(&order, &progress);
	if (!progress.scarce) {
		assert_true(progress.present >= 1 << 20);
		assert_int_equal(progress.read + progress.present, 2 << 20);
	}
	close(fd);
}

/* --- for whom ------------------------------------------------------------------------------- */

/* Reads a file from the disk, half a MiB every 10 ms, then stays. */
static pid_t start_reader(const char *name)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	static char data[512 << 10];
	int fd = open(world_path(name), O_RDONLY);
	while (fd >= 0 && read(fd, data, sizeof(data)) > 0)
		usleep(10000);
	for (;;)
		pause();
}

static void end_reader(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static uint64_t now_us(void)
{
	return (uint64_t)(seconds() * 1e6);
}

/* Looks for so many seconds; how often it gave way. */
static unsigned look_for(struct warm_pace *pace, double how_long)
{
	unsigned yields = 0;
	for (double end = seconds() + how_long; seconds() < end; usleep(20000)) {
		warm_pace_look(pace, now_us());
		yields += pace->yields;
	}
	return yields;
}

static void others_go_first(void **state)
{
	(void)state;
	int list = new_file("list", 24 << 20), other = new_file("other", 24 << 20);
	struct warm_stretch all = { list, 0, 24 << 20 };
	struct warm_order order = { .stretches = &all, .n = 1, .n_tree = 1 };
	struct warm_pace pace;

	order.tree[0] = start_reader("other");
	warm_pace_begin(&pace, &order, now_us());
	unsigned yields = look_for(&pace, 0.4);
	if (pace.bytes == 0) {
		end_reader(order.tree[0]);
		print_message("skipped: reads of this medium are not counted\n");
		skip();
	}
	assert_true(yields > 3);
	assert_true(warm_pace_slow(&pace, now_us()));
	/* A thirtieth of 50 MiB a second, and a quarter of one: 256 KiB take a tenth of a second and more. */
	uint64_t now = now_us();
	warm_pace_next(&pace, now, 64, 256 << 10);
	if (pace.yields)
		assert_true(pace.allowed_us > now + 50000);
	/* It has come to its end: slowly we are back. */
	look_for(&pace, 2.5);
	assert_false(warm_pace_slow(&pace, now_us()));
	end_reader(order.tree[0]);
	warm_pace_look(&pace, now_us());
	assert_true(pace.ended);

	order.tree[0] = start_reader("list");
	warm_pace_begin(&pace, &order, now_us());
	yields = look_for(&pace, 0.4);
	assert_true(pace.bytes > 0);
	assert_int_equal(yields, 0);
	end_reader(order.tree[0]);
	close(list);
	close(other);
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_set_up, world_tear_down)
	const struct CMUnitTest tests[] = {
		WORLD(neighbours_are_merged), WORLD(pages_used_once_beside_hot_ones_are_left),
		WORLD(changed_files_are_left_out), WORLD(a_rate_holds), WORLD(a_ceiling_holds),	      WORLD(what_is_there_is_not_read),	 WORLD(others_go_first),
	};
	world_base = "/var/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
