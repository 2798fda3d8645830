/* What a watched tree reads is told by file and range, whoever of it reads; what others read is not. A watch is
 * bounded in what it costs: time and memory. */
#include "bpf/touch.h" /* before cmocka makes a macro of fail */

#include <bpf/bpf.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB 1048576u
#define SIZE 8u /* MiB */

static struct fsnap_error err;
static struct touch_watch *watch;
static char path[] = "/var/tmp/fsnap-touch-XXXXXX";
static int file;

/* What was touched of our file, by MiB; after asking for it twice the CPUs have put down what they held. */
struct seen {
	ino_t ino;
	uint64_t blocks[SIZE];
	struct touch_file file;
	bool found;
};

static int note(void *arg, const struct touch_key *key, const struct touch_range *range)
{
	struct seen *seen = arg;
	if (key->file.ino != seen->ino || key->mib >= SIZE)
		return 0;
	seen->blocks[key->mib] |= range->blocks;
	seen->file = key->file;
	seen->found = true;
	return 0;
}

static struct seen look(struct touch_watch *at)
{
	struct stat stat;
	assert_int_equal(fstat(file, &stat), 0);
	struct seen seen = { .ino = stat.st_ino };
	assert_int_equal(touch_watch_read(at, note, &seen, &err), 0);
	return seen;
}

static void read_at(off_t offset, size_t size)
{
	static char buf[MIB];
	assert_int_equal(pread(file, buf, size, offset), size);
}

static int start_watch(void **state)
{
	(void)state;
	pid_t self = getpid();
	watch = touch_watch_start(&self, 1, &err);
	return 0;
}

static int end_watch(void **state)
{
	(void)state;
	touch_watch_close(watch);
	watch = NULL;
	return 0;
}

static void need_watch(void)
{
	if (!watch) {
		print_message("skipped: %s\n", err.message);
		skip();
	}
}

/* Does it again until the watch has seen a block: it looks away for a moment where others on this processor
 * have read so much that its budget is spent. */
static struct seen look_until(void (*act)(void), int mib, uint64_t block)
{
	struct seen seen = { 0 };
	for (int i = 0; i < 50 && (seen.blocks[mib] & block) != block; i++) {
		if (i)
			usleep(100000);
		act();
		seen = look(watch);
	}
	return seen;
}

static void read_some(void)
{
	read_at(2 * MIB + 5 * 16384, 16384);
	read_at(4 * MIB, MIB);
}

static void reads_are_seen(void **state)
{
	(void)state;
	need_watch();
	struct seen seen = look_until(read_some, 4, UINT64_MAX);
	assert_true(seen.found);
	assert_true(seen.blocks[2] & 1u << 5);
	assert_int_equal(seen.blocks[4], UINT64_MAX);
	assert_int_equal(seen.blocks[7], 0);
}

static void read_first(void)
{
	read_at(0, 4096);
}

static void its_name_is_known(void **state)
{
	(void)state;
	need_watch();
	char told[4096];
	struct seen seen = look_until(read_first, 0, 1);
	assert_int_equal(touch_watch_path(watch, &seen.file, told, sizeof(told)), 0);
	assert_string_equal(strrchr(told, '/'), strrchr(path, '/'));
}

static void fault(void)
{
	volatile char *map = mmap(NULL, SIZE * MIB, PROT_READ, MAP_SHARED, file, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	(void)map[3 * MIB];
	munmap((void *)map, SIZE * MIB);
}

static void faults_are_seen(void **state)
{
	(void)state;
	need_watch();
	assert_true(look_until(fault, 3, 1).blocks[3] & 1);
}

static void in_child(void (*what)(void))
{
	pid_t pid = fork();
	if (pid == 0) {
		what();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void read_sixth(void)
{
	read_at(6 * MIB, 4096);
}

static void read_in_child(void)
{
	in_child(read_sixth);
}

static void children_are_watched(void **state)
{
	(void)state;
	need_watch();
	assert_true(look_until(read_in_child, 6, 1).blocks[6] & 1);
}

static void others_are_not(void **state)
{
	(void)state;
	need_watch();
	/* A watch of a child that does nothing: what we do is not its concern. */
	int gate[2];
	assert_int_equal(pipe(gate), 0);
	pid_t pid = fork();
	if (pid == 0) {
		char byte;
		close(gate[1]);
		_exit((int)read(gate[0], &byte, 1));
	}
	struct touch_watch *other = touch_watch_start(&pid, 1, &err);
	assert_non_null(other);
	read_at(MIB, MIB);
	assert_false(look(other).found);
	touch_watch_close(other);
	close(gate[0]);
	close(gate[1]);
	waitpid(pid, NULL, 0);
}

/* --- who keeps it ------------------------------------------------------------------- */

struct keeper {
	pid_t pid;
	int gate;
};

static struct keeper begin_keeping(void)
{
	int gate[2];
	assert_int_equal(pipe(gate), 0);
	struct keeper keeper = { fork(), gate[1] };
	if (keeper.pid == 0) {
		struct pollfd end = { .fd = gate[0] };
		close(gate[1]);
		_exit(touch_watch_keep(watch, &end, 1) == 0 ? 0 : 1);
	}
	close(gate[0]);
	/* What keeps our links open is he alone. */
	touch_watch_look(watch, TOUCH_NOTHING, NULL);
	return keeper;
}

static void end_keeping(struct keeper *keeper)
{
	int status;
	close(keeper->gate);
	assert_int_equal(waitpid(keeper->pid, &status, 0), keeper->pid);
	assert_int_equal(status, 0);
}

/* How often the program on reads was called so far. */
static uint64_t calls(void)
{
	int fds[TOUCH_DESCRIPTORS];
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);
	touch_watch_descriptors(watch, fds);
	assert_int_equal(bpf_obj_get_info_by_fd(fds[0], &info, &size), 0);
	return info.run_cnt;
}

/* Reads of the first 4 KiB, for so many seconds. */
static uint64_t read_without_pause(double seconds)
{
	struct timespec now, begin;
	uint64_t reads = 0;
	char page[4096];
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		for (int i = 0; i < 100; i++, reads++)
			assert_int_equal(pread(file, page, sizeof(page), 0), sizeof(page));
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9 < seconds);
	return reads;
}

/* A hundred thousand reads a second and more: few of them pay for being watched. A quarter is more than a hundred
 * times what a quiet machine shows; without a keeper it is all of them. */
static void much_reading_is_sampled(void **state)
{
	(void)state;
	need_watch();
	int stats = bpf_enable_stats(BPF_STATS_RUN_TIME);
	struct keeper keeper = begin_keeping();
	if (stats < 0) {
		end_keeping(&keeper);
		print_message("skipped: the kernel does not count calls\n");
		skip();
	}
	read_without_pause(0.3); /* spends what a quiet past has left */
	uint64_t before = calls(), reads = read_without_pause(1.0), looked = calls() - before;
	close(stats);
	print_message("%lu reads, %lu of them looked at\n", reads, looked);
	if (reads > 200000)
		assert_true(looked < reads / 4);
	assert_true(looked > 0);
	/* He looks again, once there is less to see: nothing is missed any more. */
	bool seen = false;
	for (int i = 0; !seen && i < 100; i++) {
		usleep(20000);
		read_at(5 * MIB, 4096);
		seen = look(watch).blocks[5] & 1;
	}
	assert_true(seen);
	end_keeping(&keeper);
}

/* --- what it takes ---------------------------------------------------------------------- */

/* Of the table that a descriptor is, by /proc/self/fdinfo; 0: it is none. */
static long memory_of(int fd)
{
	char name[64], line[128];
	long bytes = 0;
	bool table = false;
	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	FILE *info = fopen(name, "r");
	while (info && fgets(line, sizeof(line), info)) {
		table |= strncmp(line, "map_type:", 9) == 0;
		sscanf(line, "memlock: %ld", &bytes);
	}
	if (info)
		fclose(info);
	return table ? bytes : 0;
}

static long memory_of_all(void)
{
	long sum = 0;
	for (int fd = 3; fd < 256; fd++)
		sum += memory_of(fd);
	return sum;
}

static int count(void *arg, const struct touch_key *key, const struct touch_range *range)
{
	(void)key, (void)range;
	++*(unsigned *)arg;
	return 0;
}

/* A hole of a TiB, touched in 4096 places: what a watch takes is the same as before. */
static void memory_is_bounded(void **state)
{
	(void)state;
	need_watch();
	unsigned ranges = 0;
	char byte;
	long before = memory_of_all();
	assert_int_equal(ftruncate(file, (off_t)MIB * MIB), 0);
	for (off_t at = 0; at < (off_t)MIB * MIB; at += 256 * MIB)
		assert_int_equal(pread(file, &byte, 1, at), 1);
	assert_int_equal(ftruncate(file, SIZE * MIB), 0);
	assert_int_equal(touch_watch_read(watch, count, &ranges, &err), 0);
	print_message("%u ranges, %ld bytes\n", ranges, memory_of_all());
	assert_true(ranges > 4000 && ranges <= TOUCH_RANGES);
	assert_int_equal(memory_of_all(), before);
	assert_true(before > 0 && before <= TOUCH_MEMORY);
}

static void a_pinned_watch_stays(void **state)
{
	(void)state;
	need_watch();
	char place[] = "/var/tmp/fsnap-bpffs-XXXXXX", dir[64];
	assert_non_null(mkdtemp(place));
	snprintf(dir, sizeof(dir), "%s/watch", place);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", place, "bpf", 0, NULL) < 0) {
		print_message("skipped: no bpffs to be mounted here\n");
		skip();
	}
	assert_null(touch_watch_open(dir, &err));
	assert_int_equal(touch_watch_pin(watch, dir, &err), 0);
	struct keeper keeper = begin_keeping();
	touch_watch_close(watch);
	watch = NULL;
	read_at(7 * MIB, 4096);
	struct touch_watch *again = touch_watch_open(dir, &err);
	assert_non_null(again);
	assert_true(look(again).blocks[7] & 1);
	touch_watch_close(again);
	end_keeping(&keeper);
	assert_int_equal(touch_watch_unpin(dir, &err), 0);
	assert_null(touch_watch_open(dir, &err));
	umount2(place, MNT_DETACH);
	rmdir(place);
}

int main(void)
{
#define WATCHED(test) cmocka_unit_test_setup_teardown(test, start_watch, end_watch)
	const struct CMUnitTest tests[] = {
		WATCHED(reads_are_seen), WATCHED(its_name_is_known),	WATCHED(faults_are_seen),
		WATCHED(children_are_watched), WATCHED(others_are_not), WATCHED(much_reading_is_sampled),
		WATCHED(memory_is_bounded), WATCHED(a_pinned_watch_stays),
	};
	file = mkstemp(path);
	if (file < 0 || posix_fallocate(file, 0, SIZE * MIB) != 0)
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return failed;
}
