/*
 * Twenty thousand mappings (or as many as vm.max_map_count lets one have) of one file at
 * many offsets, shared and private, in no order; each shows its place in the file, and
 * those that were written to hold that.
 *
 * harness: modes=left-running,restored
 */
#include "specimen_memory.h"

enum { MOST = 20000, SPARE = 3000 };

static long max_map_count(void)
{
	long n = 65530;
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	if (file && fscanf(file, "%ld", &n) != 1)
		n = 65530;
	if (file)
		fclose(file);
	return n;
}

int main(void)
{
	long count = max_map_count() - SPARE < MOST ? max_map_count() - SPARE : MOST;
	int fd = MUST(open(specimen_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(ftruncate(fd, count * 2 * PAGE));
	char **at = MUST(mmap(NULL, (size_t)count * sizeof(*at), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (long i = 0; i < count; i += 50)
		MUST(pwrite(fd, &i, sizeof(i), i * 7919 % count * 2 * PAGE));
	for (long i = 0; i < count; i++) {
		at[i] = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, i % 2 ? MAP_SHARED : MAP_PRIVATE, fd,
				  i * 7919 % count * 2 * PAGE));
		if (i % 1000 == 10)
			memcpy(at[i], &i, sizeof(i));
	}
	MUST(close(fd));

	while (specimen_round()) {
		specimen_ready();
		long wrong = 0, mine;
		for (long i = 0; i < count; i++) {
			if (i % 50 && i % 1000 != 10)
				continue;
			memcpy(&mine, at[i], sizeof(mine));
			wrong += mine != i;
		}
		expect_int("mappings that show something else", 0, wrong);
	}
	return specimen_end();
}
