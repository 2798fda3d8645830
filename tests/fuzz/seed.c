/*
 * seed.c - an image as an input of fuzz_records.c.
 *
 *	seed IMAGE >corpus/records/NAME
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "recipe.h"
#include "store/internal.h"
#include "store/scope.h"

static void copy(int fd, const struct layout_section *section)
{
	cleanup_free char *bytes = malloc(section->length + 1);
	if (!bytes || pread(fd, bytes, section->length, (off_t)section->offset) != (ssize_t)section->length ||
	    fwrite(bytes, 1, section->length, stdout) != section->length) {
		perror("seed");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct fsnap_error err = { 0 };
	struct layout_slot slot;
	struct stat st;
	int fd = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "usage: seed IMAGE\n");
		return 2;
	}
	if (image_read_head(fd, (uint64_t)st.st_size, argv[1], &slot, &err) < 0) {
		fprintf(stderr, "seed: %s\n", err.message);
		return 1;
	}
	struct recipe recipe = { (uint32_t)slot.records, (uint32_t)slot.hint_records,
				 (uint32_t)slot.metadata.length, (uint32_t)slot.hints.length };
	fwrite(&recipe, sizeof(recipe), 1, stdout);
	copy(fd, &slot.metadata);
	copy(fd, &slot.hints);
	copy(fd, &slot.index);
	return fflush(stdout) ? 1 : 0;
}
