/*
 * commit.c - from a filled page area to an image. The order of the steps is the one numbered in
 * store/README.md; a crash between any two of them leaves no image, or the whole image.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>

#include "store/parallel.h"
#include "store/scope.h"
#include "store/writer.h"

#define CHECKSUM_GRAIN 8 /* blocks */

static int by_space_and_page(const void *a, const void *b)
{
	const struct page_run *one = a, *two = b;
	if (one->space != two->space)
		return one->space < two->space ? -1 : 1;
	return one->page < two->page ? -1 : one->page > two->page;
}

static int sort_runs(struct image_writer *writer, struct fsnap_error *err)
{
	uint64_t bad;
	const char *wrong =
		layout_check_runs(writer->runs, writer->run_count, writer->space, &bad);
	if (wrong) { /* most often just the order */
		qsort(writer->runs, writer->run_count, sizeof(*writer->runs), by_space_and_page);
		wrong = layout_check_runs(writer->runs, writer->run_count, writer->space, &bad);
	}
	if (wrong)
		return fail(err, FSNAP_E_USAGE, 0,
			    "image %s: run of page %#" PRIx64 " in space %" PRIu32 " %s",
			    writer->name, writer->runs[bad].page, writer->runs[bad].space, wrong);
	return 0;
}

static void checksum_missing(void *arg, uint64_t first, uint64_t n)
{
	struct image_writer *writer = arg;
	for (uint64_t block = first; block < first + n; block++)
		if (writer->blocks[block].pages != layout_block_pages(block, writer->taken))
			image_writer_checksum(writer, block, 1);
}

static uint64_t *block_table(struct image_writer *writer)
{
	uint64_t count = layout_blocks(writer->taken);
	assert(!writer->scratch);
	parallel_for(count, CHECKSUM_GRAIN, checksum_missing, writer);
	uint64_t *table = malloc((count + 1) * sizeof(*table));
	for (uint64_t i = 0; table && i < count; i++)
		table[i] = writer->blocks[i].checksum;
	return table;
}

/* --- tables ----------------------------------------------------------------------------------- */

#define TABLES 5

struct table {
	struct layout_section *section;
	const void *bytes;
	uint64_t length;
};

/* In front of the page area where there is room, else behind its `area` bytes. */
static uint64_t place_tables(struct table *table, int count, uint64_t area)
{
	uint64_t size = 0;
	for (int i = 0; i < count; i++)
		size += align_up(table[i].length, sizeof(uint64_t));
	uint64_t offset = LAYOUT_TABLES;
	if (size > LAYOUT_PAGES - LAYOUT_TABLES)
		offset = align_up(LAYOUT_PAGES + area, sizeof(uint64_t));
	for (int i = 0; i < count; i++) {
		table[i].section->offset = offset;
		table[i].section->length = table[i].length;
		table[i].section->checksum = layout_checksum(table[i].bytes, table[i].length);
		offset += align_up(table[i].length, sizeof(uint64_t));
	}
	return offset;
}

static int write_tables(struct image_writer *writer, struct layout_slot *slot,
			struct fsnap_error *err)
{
	cleanup_free uint64_t *sums = writer->scratch ? NULL : block_table(writer);
	if (!sums && !writer->scratch)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: block checksums", writer->name);
	const void *blocks = writer->scratch ? (void *)writer->frames : sums;
	uint64_t entry = writer->scratch ? sizeof(*writer->frames) : sizeof(*sums);
	struct table table[] = {
		{&slot->metadata, writer->records.bytes, writer->records.length},
		{&slot->blocks, blocks, layout_blocks(writer->taken) * entry},
		{&slot->index, writer->runs, writer->run_count * sizeof(*writer->runs)},
		{&slot->hints, writer->hints.bytes, writer->hints.length},
		{&slot->lineage, writer->lineage, writer->n_ancestors * sizeof(*writer->lineage)},
	};
	slot->pages = writer->taken;
	uint64_t end = place_tables(table, TABLES, layout_area(slot));
	uint64_t start = slot->metadata.offset;
	if (writer_back(writer, start, end - start, err) < 0)
		return -1;
	memset(medium_at(writer->medium, start), 0, end - start); /* between them, too, nothing of a former image stays */
	for (int i = 0; i < TABLES; i++)
		medium_copy(writer->medium, table[i].section->offset, table[i].bytes,
			    table[i].length);

	uint64_t pages_end = writer->taken ? LAYOUT_PAGES + layout_area(slot) : 0;
	slot->length = align_up(end > pages_end ? end : pages_end, STORE_PAGE);
	slot->pages_offset = LAYOUT_PAGES;
	slot->records = writer->records.count;
	slot->hint_records = writer->hints.count;
	return 0;
}

static int clear(struct image_writer *writer, uint64_t from, uint64_t to, struct fsnap_error *err)
{
	if (to > writer->claim.length)
		to = writer->claim.length; /* what is behind was never anybody's */
	if (from >= to)
		return 0;
	memset(medium_at(writer->medium, from), 0, to - from);
	return medium_persist(writer->medium, from, to - from, err);
}

/* The file may have been that of an image that was not encrypted. Whoever gives this one away gives the whole file. */
static int clear_rest(struct image_writer *writer, const struct layout_slot *slot, struct fsnap_error *err)
{
	uint64_t tables = slot->metadata.offset, tables_end = slot->lineage.offset + slot->lineage.length;
	uint64_t area_end = LAYOUT_PAGES + layout_area(slot);
	bool in_front = tables < LAYOUT_PAGES;
	if (!writer->cipher || !writer->claim.recycled)
		return 0;
	if (clear(writer, in_front ? tables_end : LAYOUT_TABLES, LAYOUT_PAGES, err) < 0 ||
	    clear(writer, area_end, in_front ? UINT64_MAX : tables, err) < 0)
		return -1;
	return in_front ? 0 : clear(writer, tables_end, UINT64_MAX, err);
}

/* A file many times the image's size keeps space from others; a little slack is for recycling. */
static int cut_file(struct image_writer *writer, const struct layout_slot *slot,
		    struct fsnap_error *err)
{
	uint64_t keep = align_up(slot->length, LAYOUT_HUGE);
	if (keep < STORE_FILE_MIN)
		keep = STORE_FILE_MIN;
	if (medium_length(writer->medium) / 4 > keep && ftruncate(writer->claim.fd, (off_t)keep) < 0)
		return store_fail(err, errno, "image %s: cutting the file", writer->name);
	return 0;
}

/* --- the steps ---------------------------------------------------------------------------------- */

/* Steps 2 and 3. */
static int seal(struct image_writer *writer, struct layout_slot *slot, struct fsnap_error *err)
{
	struct medium *medium = writer->medium;
	if (writer->n_ancestors) {
		writer->super.required |= LAYOUT_LINEAGE;
		layout_seal_super(&writer->super);
		medium_copy(medium, 0, &writer->super, sizeof(writer->super));
	}
	if (writer->scratch && encode_all(writer, slot, err) < 0)
		return -1;
	if (write_tables(writer, slot, err) < 0 || clear_rest(writer, slot, err) < 0 || cut_file(writer, slot, err) < 0)
		return -1;
	uint64_t tables = slot->metadata.offset;
	uint64_t tables_end = slot->lineage.offset + slot->lineage.length;
	if (medium_persist(medium, 0, sizeof(struct layout_super), err) < 0 ||
	    medium_persist(medium, tables, tables_end - tables, err) < 0 ||
	    medium_persist(medium, LAYOUT_PAGES, layout_area(slot), err) < 0 ||
	    medium_sync_file(medium, err) < 0)
		return -1;
	writer_advance(writer, WRITER_SEALED);
	return 0;
}

/* Step 4. The state comes first: from here on a failure has a slot to wipe. */
static int write_slot(struct image_writer *writer, struct layout_slot *slot,
		      struct fsnap_error *err)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	slot->generation = 1;
	slot->created_ns = writer->created_ns ? writer->created_ns :
			   (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	memcpy(slot->uuid, writer->super.uuid, sizeof(slot->uuid));
	if (writer->cipher)
		cipher_mac(writer->cipher, &writer->super, slot, writer->frames, writer->lineage, slot->coding.mac);
	layout_seal_slot(slot);
	writer_advance(writer, WRITER_COMMITTED);
	medium_copy(writer->medium, STORE_PAGE, slot, sizeof(*slot));
	return medium_persist(writer->medium, STORE_PAGE, sizeof(*slot), err);
}

/* link(2) refuses an existing name too, where the file system knows no RENAME_NOREPLACE. */
static int take_name(struct image_writer *writer, const struct store_at *at)
{
	int dir = writer->store->dir;
	const char *from = writer->claim.at.path;
	if (renameat2(dir, from, dir, at->path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL)
		return -1;
	if (linkat(dir, from, dir, at->path, 0) < 0)
		return -1;
	return unlinkat(dir, from, 0);
}

/* Step 5, where it takes the place of another: both change places, so that there is one at any time, and ours
 * becomes the other's to be removed. Where the file system cannot do that, the other's name is just taken. */
static int take_place(struct image_writer *writer, const struct store_at *at, struct fsnap_error *err)
{
	int dir = writer->store->dir, old = image_descriptor(writer->replaces, 0);
	const char *tmp = writer->claim.at.path;
	struct stat st, now;
	if (fstat(old, &st) < 0 || fstatat(dir, at->path, &now, AT_SYMLINK_NOFOLLOW) < 0 ||
	    st.st_ino != now.st_ino || st.st_dev != now.st_dev)
		return fail(err, FSNAP_E_IMAGE_MISSING, 0, "image %s: it was removed meanwhile", writer->name);
	bool exchanged = renameat2(dir, tmp, dir, at->path, RENAME_EXCHANGE) == 0;
	if (!exchanged && renameat(dir, tmp, dir, at->path) < 0)
		return store_fail(err, errno, "image %s: naming it", writer->name);
	if (store_sync_dir(writer->store, STORE_IMAGES, err) < 0) {
		if (exchanged)
			renameat2(dir, tmp, dir, at->path, RENAME_EXCHANGE);
		return -1;
	}
	writer_advance(writer, WRITER_NAMED);
	/* The space of one that others read, or build on, is not to be had. */
	if (exchanged)
		unlinkat(dir, tmp, 0);
	return 0;
}

/* Step 5. */
static int publish(struct image_writer *writer, struct fsnap_error *err)
{
	struct store *store = writer->store;
	struct store_at at = store_image_at(writer->name);
	if (writer->replaces)
		return take_place(writer, &at, err);
	while (take_name(writer, &at) < 0) {
		if (errno != EEXIST)
			return store_fail(err, errno, "image %s: naming it", writer->name);
		if (writer_name_is_free(writer, err) < 0)
			return -1;
		/* Removed between the two looks: the name can be had after all. */
	}
	if (store_sync_dir(store, STORE_IMAGES, err) < 0) {
		renameat(store->dir, at.path, store->dir, writer->claim.at.path);
		return -1;
	}
	writer_advance(writer, WRITER_NAMED);
	return 0;
}

int image_writer_commit(struct image_writer *writer, uint64_t *file_bytes, struct fsnap_error *err)
{
	struct layout_slot slot = {0};
	if (writer_name_is_free(writer, err) < 0 || writer_settle_heritage(writer, err) < 0 || sort_runs(writer, err) < 0 ||
	    files_seal(writer, err) < 0 || seal(writer, &slot, err) < 0 || write_slot(writer, &slot, err) < 0 ||
	    files_publish(writer, err) < 0 || publish(writer, err) < 0) {
		image_writer_abort(writer);
		return -1;
	}
	if (file_bytes)
		*file_bytes = slot.length;
	writer_free(writer);
	return 0;
}
