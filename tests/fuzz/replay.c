/*
 * replay.c - a fuzz target without libFuzzer: runs it once on each file that the command line names, or
 * that lies in a directory named there; then, as often as -runs=N says, on one of them with some bytes changed. That is
 * no search, but other inputs each time, with every compiler and sanitizer that tests run with. -seed=N takes the same
 * ones again; the run in which it ended is the last that was told of.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fuzz.h"
#include "store/scope.h"

static void die(const char *path)
{
	perror(path);
	exit(1);
}

#define KEPT 64 /* inputs to be changed */
#define MOST (64u << 10)

static struct input {
	uint8_t *bytes;
	size_t length;
} kept[KEPT];
static size_t n_kept;

static void keep(const uint8_t *bytes, size_t length)
{
	if (n_kept == KEPT || length == 0 || length > MOST)
		return;
	kept[n_kept].bytes = malloc(length);
	if (!kept[n_kept].bytes)
		return;
	memcpy(kept[n_kept].bytes, bytes, length);
	kept[n_kept++].length = length;
}

/* A few bytes: another value, one more or less, or a boundary; sometimes the end is missing. */
static void run_changed(const struct input *input)
{
	static const uint8_t edges[] = { 0, 1, 0x7f, 0x80, 0xff };
	size_t length = random() % 16 ? input->length : 1 + (size_t)random() % input->length;
	cleanup_free uint8_t *bytes = malloc(length);
	if (!bytes)
		return;
	memcpy(bytes, input->bytes, length);
	for (long i = random() % 4; i >= 0; i--) {
		uint8_t *byte = &bytes[(size_t)random() % length];
		long how = random() % 4;
		*byte = how == 0 ? (uint8_t)random() : how == 1 ? *byte + 1 : how == 2 ? *byte - 1 :
			edges[(size_t)random() % sizeof(edges)];
	}
	LLVMFuzzerTestOneInput(bytes, length);
}

static void run_changes(unsigned long runs, unsigned seed)
{
	srandom(seed);
	for (unsigned long i = 0; n_kept && i < runs; i++) {
		if (i % 64 == 0)
			printf("-seed=%u: %lu changed inputs\n", seed, i);
		run_changed(&kept[(size_t)random() % n_kept]);
	}
	while (n_kept)
		free(kept[--n_kept].bytes);
}

static void run_file(const char *path)
{
	cleanup_file FILE *in = fopen(path, "rb");
	struct stat st;
	if (!in || fstat(fileno(in), &st) < 0)
		die(path);
	cleanup_free uint8_t *bytes = malloc((size_t)st.st_size + 1);
	if (!bytes || fread(bytes, 1, (size_t)st.st_size, in) != (size_t)st.st_size)
		die(path);
	printf("%s\n", path);
	keep(bytes, (size_t)st.st_size);
	LLVMFuzzerTestOneInput(bytes, (size_t)st.st_size);
}

static size_t run_directory(const char *path)
{
	DIR *dir = opendir(path);
	size_t n = 0;
	if (!dir)
		die(path);
	for (struct dirent *entry; (entry = readdir(dir));) {
		char name[4096];
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		run_file(name);
		n++;
	}
	closedir(dir);
	return n;
}

int main(int argc, char **argv)
{
	size_t n = 0;
	unsigned long runs = 0;
	unsigned seed = (unsigned)time(NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;
		if (sscanf(argv[i], "-runs=%lu", &runs) == 1 || sscanf(argv[i], "-seed=%u", &seed) == 1)
			continue;
		if (stat(argv[i], &st) < 0)
			die(argv[i]);
		if (S_ISDIR(st.st_mode))
			n += run_directory(argv[i]);
		else
			run_file(argv[i]), n++;
	}
	if (n == 0) {
		fprintf(stderr, "replay: no input\n");
		return 1;
	}
	run_changes(runs, seed);
	printf("%zu inputs, %lu changed ones\n", n, runs);
	return 0;
}
