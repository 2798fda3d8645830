/*
 * A directory that is half read with getdents64(2): the position is where it was,
 * every name comes exactly once, on the work directory's file system and on tmpfs;
 * one that was read to its end has ended.
 */
#include "specimen.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { FILES = 500 };

struct stream {
	int fd;
	char seen[FILES];
};

/* Counts the names of one portion; returns how many bytes it had. */
static long portion(struct stream *stream, size_t size)
{
	char buf[4096] __attribute__((aligned(8)));
	long n = getdents64(stream->fd, buf, size);
	for (long at = 0; at < n;) {
		struct dirent64 *entry = (struct dirent64 *)(buf + at);
		int number;
		if (sscanf(entry->d_name, "name-%d", &number) == 1)
			stream->seen[number]++;
		at += entry->d_reclen;
	}
	return n;
}

static void fill_directory(const char *path)
{
	MUST(mkdir(path, 0700));
	int dir = MUST(open(path, O_RDONLY | O_DIRECTORY));
	for (int i = 0; i < FILES; i++) {
		char name[32];
		snprintf(name, sizeof(name), "name-%d", i);
		MUST(close(MUST(openat(dir, name, O_WRONLY | O_CREAT, 0600))));
	}
	MUST(close(dir));
}

static void remove_directory(const char *path)
{
	int dir = MUST(open(path, O_RDONLY | O_DIRECTORY));
	for (int i = 0; i < FILES; i++) {
		char name[32];
		snprintf(name, sizeof(name), "name-%d", i);
		unlinkat(dir, name, 0);
	}
	close(dir);
	rmdir(path);
}

int main(void)
{
	char shm[64];
	snprintf(shm, sizeof(shm), "/dev/shm/specimen-%d", getpid());
	const char *const paths[] = { specimen_path("many"), shm };
	for (int i = 0; i < 2; i++)
		fill_directory(paths[i]);

	while (specimen_round()) {
		struct stream half[2] = { 0 }, whole[2] = { 0 };
		for (int i = 0; i < 2; i++) {
			half[i].fd = MUST(open(paths[i], O_RDONLY | O_DIRECTORY));
			whole[i].fd = MUST(open(paths[i], O_RDONLY | O_DIRECTORY));
			for (int j = 0; j < 5; j++)
				portion(&half[i], 1000);
			while (portion(&whole[i], 4096) > 0)
				;
		}
		specimen_ready();
		for (int i = 0; i < 2; i++) {
			expect_int("the other one has ended", 0, portion(&whole[i], 4096));
			while (portion(&half[i], 1000) > 0)
				;
			int once = 0, twice = 0;
			for (int j = 0; j < FILES; j++) {
				once += half[i].seen[j] == 1;
				twice += half[i].seen[j] > 1;
			}
			expect_int("names seen once", FILES, once);
			expect_int("names seen twice", 0, twice);
			close(half[i].fd);
			close(whole[i].fd);
		}
	}
	for (int i = 0; i < 2; i++)
		remove_directory(paths[i]);
	return specimen_end();
}
