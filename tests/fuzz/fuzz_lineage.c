/*
 * fuzz_lineage.c - any bytes as the lineage of an image, with a page index that leads into it.
 *
 * Shown: ancestors that are not there, named twice, of another size or generation, and runs that reach from one
 * file into the next are refused; nothing is read beyond any of the files. The input is how many entries there
 * are (one byte), these (struct layout_ancestor), and the index. An entry that begins with a byte below ANCESTORS
 * gets the identity of an image that is really there, but what its second byte leaves out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "store/layout.h"

#define ANCESTORS 4
#define ENTRIES 80 /* some more than an image may have */

static char paths[ANCESTORS][128];
static struct layout_slot slots[ANCESTORS];

static void forget(void)
{
	for (int i = 0; i < ANCESTORS; i++)
		unlink(paths[i]);
}

/* Beside the file that is opened, where those of images that were copied are looked for. */
static void make_ancestors(void)
{
	static bool made;
	if (made)
		return;
	made = true;
	for (int i = 0; i < ANCESTORS; i++) {
		struct fuzz_image image = { .uuid = { 0xf0, (uint8_t)getpid(), (uint8_t)(getpid() >> 8), (uint8_t)i } };
		int n = snprintf(paths[i], sizeof(paths[i]), "/dev/shm/");
		for (int j = 0; j < 16; j++)
			n += snprintf(paths[i] + n, sizeof(paths[i]) - (size_t)n, "%02x", image.uuid[j]);
		snprintf(paths[i] + n, sizeof(paths[i]) - (size_t)n, ".fsnap");
		fuzz_image_at(paths[i], &image, &slots[i]);
	}
	atexit(forget);
}

static void make_real(struct layout_ancestor *ancestor)
{
	uint8_t which = ancestor->uuid[0], but = ancestor->uuid[1];
	if (which >= ANCESTORS)
		return;
	const struct layout_slot *slot = &slots[which];
	memcpy(ancestor->uuid, slot->uuid, sizeof(ancestor->uuid));
	if (!(but & 1))
		ancestor->generation = slot->generation;
	if (!(but & 2))
		ancestor->checksum = slot->checksum;
	if (!(but & 4))
		ancestor->pages = slot->pages;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static struct layout_ancestor lineage[ENTRIES];
	make_ancestors();
	if (length < 1)
		return 0;
	size_t n = bytes[0] % ENTRIES;
	bytes++, length--;
	if (n > length / sizeof(lineage[0]))
		n = length / sizeof(lineage[0]);
	memcpy(lineage, bytes, n * sizeof(lineage[0]));
	for (size_t i = 0; i < n; i++)
		make_real(&lineage[i]);
	bytes += n * sizeof(lineage[0]);
	length -= n * sizeof(lineage[0]);
	struct fuzz_image image = { .lineage = { (const uint8_t *)lineage, n * sizeof(lineage[0]) },
				    .index = { bytes, length / sizeof(struct page_run) * sizeof(struct page_run) },
				    .uuid = { 1 } };
	fuzz_look_into(fuzz_image_file(&image));
	return 0;
}
