/*
 * Ten thousand descriptors in one process: files, one file opened often, pipes,
 * event counters, deleted files, duplicates. Each leads where it led, and is where
 * it was. The restoring process may not have as many descriptors again.
 *
 * harness: restless modes=left-running,restored
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { FILES = 3000, OPENS = 3000, PIPES = 1000, EVENTS = 1000, DELETED = 300, DUPLICATES = 700 };

static int files[FILES], opens[OPENS], pipes[PIPES][2], events[EVENTS], deleted[DELETED], duplicates[DUPLICATES];
static ino_t inodes[FILES];

static void open_all(const char *often)
{
	struct stat stat;
	for (int i = 0; i < FILES; i++) {
		files[i] = MUST(open(specimen_path("dir/f%d", i), O_RDWR | O_CREAT, 0600));
		MUST(fstat(files[i], &stat));
		inodes[i] = stat.st_ino;
	}
	for (int i = 0; i < OPENS; i++)
		opens[i] = MUST(open(often, O_RDONLY));
	for (int i = 0; i < DUPLICATES; i++)
		duplicates[i] = MUST(dup(opens[i]));
	for (int i = 0; i < PIPES; i++) {
		MUST(pipe(pipes[i]));
		MUST(write(pipes[i][1], &i, sizeof(i)));
	}
	for (int i = 0; i < EVENTS; i++)
		events[i] = MUST(eventfd(0, 0));
	for (int i = 0; i < DELETED; i++) {
		char *path = specimen_path("gone%d", i);
		deleted[i] = MUST(open(path, O_RDWR | O_CREAT, 0600));
		MUST(write(deleted[i], &i, sizeof(i)));
		MUST(unlink(path));
	}
}

/* What a round's checks have used up. */
static void set_up_again(void)
{
	for (int i = 0; i < OPENS; i++)
		MUST(lseek(opens[i], i % 100, SEEK_SET));
	for (int i = 0; i < EVENTS; i++) {
		uint64_t count = (uint64_t)i + 1;
		MUST(write(events[i], &count, sizeof(count)));
	}
}

static void expect_all(void)
{
	int good = 0, number = -1;
	struct stat stat;
	uint64_t count;
	for (int i = 0; i < FILES; i++)
		good += fstat(files[i], &stat) == 0 && stat.st_ino == inodes[i];
	expect_int("files", FILES, good);
	good = 0;
	for (int i = 0; i < OPENS; i++)
		good += lseek(opens[i], 0, SEEK_CUR) == i % 100;
	expect_int("positions in one file", OPENS, good);
	good = 0;
	for (int i = 0; i < DUPLICATES; i++) {
		lseek(opens[i], 1000 + i, SEEK_SET);
		good += lseek(duplicates[i], 0, SEEK_CUR) == 1000 + i;
	}
	expect_int("duplicates that share the position", DUPLICATES, good);
	good = 0;
	for (int i = 0; i < PIPES; i++)
		good += read(pipes[i][0], &number, sizeof(number)) == sizeof(number) && number == i &&
			write(pipes[i][1], &i, sizeof(i)) == sizeof(i);
	expect_int("pipes", PIPES, good);
	good = 0;
	for (int i = 0; i < EVENTS; i++)
		good += read(events[i], &count, sizeof(count)) == sizeof(count) && count == (uint64_t)i + 1;
	expect_int("event counters", EVENTS, good);
	good = 0;
	for (int i = 0; i < DELETED; i++)
		good += pread(deleted[i], &number, sizeof(number), 0) == sizeof(number) && number == i &&
			fstat(deleted[i], &stat) == 0 && stat.st_nlink == 0;
	expect_int("deleted files", DELETED, good);
}

int main(void)
{
	struct rlimit limit;
	MUST(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	if (limit.rlim_max < 10500)
		specimen_skip("the limit on open files is %lu", (unsigned long)limit.rlim_max);
	MUST(setrlimit(RLIMIT_NOFILE, &limit));
	char *often = specimen_path("often");
	close(MUST(open(often, O_RDWR | O_CREAT, 0600)));
	open_all(often);
	while (specimen_round()) {
		set_up_again();
		specimen_ready();
		expect_all();
	}
	return specimen_end();
}
