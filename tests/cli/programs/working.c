/*
 * working WORK MIB - has much memory and works on a little of it: every 64th page of the first half is written over
 * and over. When the file WORK/ask is there it looks through all of it, writes what it found to WORK/answer
 * ("ok", or what is wrong) and removes WORK/ask.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, EVERY = 64 };

static uint64_t *memory;
static size_t pages;

static int is_worked_on(size_t page)
{
	return page < pages / 2 && page % EVERY == 0;
}

static const char *look(uint64_t round)
{
	for (size_t i = 0; i < pages; i++) {
		if (memory[i * WORDS] != i + 1)
			return "a page is not what it was";
		if (memory[i * WORDS + 1] != (is_worked_on(i) ? round : 0))
			return "a page is older than it should be, or newer";
	}
	return "ok";
}

static void put(const char *work, const char *name, const char *what)
{
	char path[4000], final[4000];
	snprintf(path, sizeof(path), "%s/new", work);
	snprintf(final, sizeof(final), "%s/%s", work, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, what, strlen(what)) < 0 || close(fd) < 0 || rename(path, final) < 0)
		exit(3);
}

int main(int argc, char **argv)
{
	char ask[4000];
	if (argc < 3)
		return 2;
	pages = strtoul(argv[2], NULL, 0) << 8;
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 3;
	for (size_t i = 0; i < pages; i++)
		memory[i * WORDS] = i + 1;
	snprintf(ask, sizeof(ask), "%s/ask", argv[1]);
	put(argv[1], "ready", "");
	for (uint64_t round = 1;; round++, usleep(2000)) {
		for (size_t i = 0; i < pages; i++)
			if (is_worked_on(i))
				memory[i * WORDS + 1] = round;
		if (access(ask, F_OK) == 0) {
			put(argv[1], "answer", look(round));
			unlink(ask);
		}
	}
}
