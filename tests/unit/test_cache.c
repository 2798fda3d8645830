/* What is in the page cache: both sources agree about it, and the kernel's heat shows in one of them. */
#include "bpf/cache.h" /* before cmocka makes a macro of fail */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>


#define PAGE 4096
#define PAGES 4096

static struct fsnap_error err;
static struct cache_reader *reader;

struct seen {
	uint8_t heat[2][PAGES];
	uint64_t behind; /* pages beyond the end of the file */
	unsigned runs;
};

static int note(void *arg, const struct cache_run *run)
{
	struct seen *seen = arg;
	assert_true(run->file < 2 && run->heat >= CACHE_COLD && run->heat <= CACHE_HOT);
	for (uint64_t i = run->page; i < run->page + run->pages; i++) {
		if (i >= PAGES) {
			seen->behind++;
			continue;
		}
		assert_int_equal(seen->heat[run->file][i], CACHE_ABSENT);
		seen->heat[run->file][i] = (uint8_t)run->heat;
	}
	seen->runs++;
	return 0;
}

static int new_file(void)
{
	char path[] = "/var/tmp/fsnap-cache-XXXXXX";
	static char block[PAGE * 64];
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	unlink(path);
	for (int i = 0; i < PAGES / 64; i++)
		assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
	return fd;
}

static void touch(int fd, unsigned page)
{
	char byte;
	assert_int_equal(pread(fd, &byte, 1, (off_t)page * PAGE), 1);
}

static void both_agree(const int *fds, size_t n, struct seen *seen)
{
	static struct seen plain;
	memset(seen, 0, sizeof(*seen));
	memset(&plain, 0, sizeof(plain));
	assert_int_equal(cache_read(reader, fds, n, note, seen, &err), 0);
	assert_int_equal(cache_read_plain(fds, n, note, &plain, &err), 0);
	for (size_t file = 0; file < n; file++)
		for (unsigned i = 0; i < PAGES; i++)
			if ((seen->heat[file][i] != CACHE_ABSENT) != (plain.heat[file][i] != CACHE_ABSENT))
				fail_msg("file %zu page %u: heat %u from the iterator, %u from mincore", file, i,
					 seen->heat[file][i], plain.heat[file][i]);
}

static void need_iterator(void)
{
	if (!reader) {
		print_message("skipped: %s\n", err.message);
		skip();
	}
}

static void scattered_pages_are_found(void **state)
{
	(void)state;
	need_iterator();
	static const unsigned pages[] = { 0, 1, 63, 64, 65, 700, 701, 1024, 2047, 3000, 4095 };
	static struct seen seen;
	int fds[2] = { new_file(), new_file() };
	for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++)
		touch(fds[i % 2], pages[i]);
	both_agree(fds, 2, &seen);
	for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++)
		assert_int_not_equal(seen.heat[i % 2][pages[i]], CACHE_ABSENT);
	assert_int_equal(seen.heat[0][2000], CACHE_ABSENT);
	close(fds[0]);
	close(fds[1]);
}

static void whole_files_are_few_runs(void **state)
{
	(void)state;
	need_iterator();
	static struct seen seen;
	int fd = new_file();
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	for (unsigned i = 0; i < PAGES; i++)
		touch(fd, i);
	both_agree(&fd, 1, &seen);
	assert_int_not_equal(seen.heat[0][0], CACHE_ABSENT);
	assert_int_not_equal(seen.heat[0][PAGES - 1], CACHE_ABSENT);
	assert_true(seen.runs < PAGES / 8);
	close(fd);
}

/* The kernel gathers some dozens of promotions before it carries them out: hence a thousand pages. */
static void used_again_is_warmer(void **state)
{
	(void)state;
	need_iterator();
	static struct seen seen;
	int fd = new_file();
	unsigned hot = 0, others = 0;
	for (unsigned i = 2048; i < PAGES; i++)
		touch(fd, i);
	for (int round = 0; round < 4; round++)
		for (unsigned i = 0; i < 1024; i++)
			touch(fd, i);
	both_agree(&fd, 1, &seen);
	for (unsigned i = 0; i < 1024; i++)
		hot += seen.heat[0][i] == CACHE_HOT;
	for (unsigned i = 2048; i < PAGES; i++)
		others += seen.heat[0][i] == CACHE_HOT;
	assert_true(hot > 700);
	assert_int_equal(others, 0);
	close(fd);
}

static int stop(void *arg, const struct cache_run *run)
{
	(void)run;
	++*(int *)arg;
	return 17;
}

static void a_visit_may_end_it(void **state)
{
	(void)state;
	int fd = new_file(), visits = 0;
	touch(fd, 0);
	touch(fd, 2000);
	assert_int_equal(cache_read_plain(&fd, 1, stop, &visits, &err), 17);
	assert_int_equal(visits, 1);
	if (reader) {
		assert_int_equal(cache_read(reader, &fd, 1, stop, &visits, &err), 17);
		assert_int_equal(visits, 2);
	}
	close(fd);
}

static void what_is_no_file_is_nothing(void **state)
{
	(void)state;
	static struct seen seen;
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(cache_read_plain(pipes, 2, note, &seen, &err), 0);
	if (reader)
		assert_int_equal(cache_read(reader, pipes, 2, note, &seen, &err), 0);
	assert_int_equal(seen.runs, 0);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scattered_pages_are_found),
		cmocka_unit_test(whole_files_are_few_runs),
		cmocka_unit_test(used_again_is_warmer),
		cmocka_unit_test(a_visit_may_end_it),
		cmocka_unit_test(what_is_no_file_is_nothing),
	};
	reader = cache_reader_open(&err);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	cache_reader_close(reader);
	return failed;
}
