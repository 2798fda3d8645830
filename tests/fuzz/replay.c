/*
 * replay.c - a fuzz target without libFuzzer: runs it once on each file that the command line names, or
 * that lies in a directory named there.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "store/scope.h"

static void die(const char *path)
{
	perror(path);
	exit(1);
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
	fflush(stdout);
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
	for (int i = 1; i < argc; i++) {
		struct stat st;
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
	printf("%zu inputs\n", n);
	return 0;
}
