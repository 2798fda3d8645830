/* writer.c - claiming space for an image and filling it. Committing it is commit.c. */
#define _GNU_SOURCE
#include "store/writer.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>

#include "store/scope.h"

#define HUGE_FROM (4ull << 20) /* a folio that a host must give first takes 5 ms; small pages are there from before */
#define ROOM_CHECK (64ull << 20) /* asking the kernel about less is not worth the question */

void writer_advance(struct image_writer *writer, enum writer_state to)
{
	assert(to == writer->state + 1);
	writer->state = to;
}

int writer_name_is_free(const struct image_writer *writer, struct fsnap_error *err)
{
	struct store_at at = store_image_at(writer->name);
	struct stat st;
	if (writer->replaces || fstatat(writer->store->dir, at.path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* whatever else is wrong shows when the name is taken */
	fail(err, FSNAP_E_IMAGE_EXISTS, 0, "image %s: there is one already", writer->name);
	return error_hint(err, "choose another name, or remove it with `fsnap rm %s`",
			  writer->name);
}

/* --- backing ------------------------------------------------------------------------------- */

/* On tmpfs the limit may be beyond what the machine has, and then not an error but the kernel's
 * OOM killer would answer, and perhaps hit the very tree that is being saved. */
int writer_check_memory(uint64_t bytes, const char *what, struct fsnap_error *err)
{
	cleanup_file FILE *info = fopen("/proc/meminfo", "re");
	char line[128];
	uint64_t kib;
	while (info && fgets(line, sizeof(line), info)) {
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) != 1)
			continue;
		if (bytes / 1024 < kib)
			return 0;
		fail(err, FSNAP_E_STORE_FULL, 0,
		     "%s in memory, which has %" PRIu64 " MiB left; the image needs %" PRIu64 " MiB more", what,
		     kib >> 10, bytes >> 20);
		return error_hint(err, "remove images of stores in memory, or use a store on a disk");
	}
	return 0;
}

/* fallocate(2) that runs out has taken all there was first, from everybody else on the disk. */
static int check_room(const struct image_writer *writer, uint64_t bytes, struct fsnap_error *err)
{
	struct statvfs fs;
	if (bytes < ROOM_CHECK)
		return 0;
	if (fstatvfs(writer->store->dir, &fs) == 0 && bytes / fs.f_frsize >= fs.f_bavail)
		return store_fail(err, ENOSPC, "%" PRIu64 " MiB needed, %" PRIu64 " MiB left",
				  bytes >> 20, (uint64_t)fs.f_bavail * fs.f_frsize >> 20);
	return writer->store->in_memory ? writer_check_memory(bytes, "the store is", err) : 0;
}

static int back_once(struct image_writer *writer, uint64_t offset, uint64_t length,
		     struct fsnap_error *err)
{
	uint64_t old_end = writer->claim.recycled ? writer->claim.length : 0;
	uint64_t fresh = offset > old_end ? offset : old_end;
	uint64_t end = offset + length;

	if (end > fresh && check_room(writer, end - fresh, err) < 0)
		return -1;
	if (medium_grow(writer->medium, end, err) < 0)
		return -1;
	if (end > fresh && end - fresh >= HUGE_FROM)
		medium_make_huge(writer->medium, fresh, end - fresh);
	return medium_prepare(writer->medium, offset, length, err);
}

int writer_back(struct image_writer *writer, uint64_t offset, uint64_t length,
		struct fsnap_error *err)
{
	struct fsnap_error first = {0};
	if (length == 0 || back_once(writer, offset, length, &first) == 0)
		return 0;
	/* What the pool holds is of no use while it keeps this image from being written. */
	if (first.code == FSNAP_E_STORE_FULL && pool_empty(writer->store, NULL) > 0) {
		memset(&first, 0, sizeof(first));
		if (back_once(writer, offset, length, &first) == 0)
			return 0;
	}
	writer->starved = first.code == FSNAP_E_STORE_FULL;
	if (err && !error_is_set(err))
		*err = first;
	return -1;
}

static int grow_blocks(struct image_writer *writer, uint64_t pages, struct fsnap_error *err)
{
	uint64_t had = layout_blocks(writer->reserved), need = layout_blocks(pages);
	if (need == had)
		return 0;
	struct block_sum *blocks = realloc(writer->blocks, need * sizeof(*blocks));
	if (!blocks)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: block checksums", writer->name);
	memset(blocks + had, 0, (need - had) * sizeof(*blocks));
	writer->blocks = blocks;
	return 0;
}

int image_writer_reserve(struct image_writer *writer, uint64_t pages, struct fsnap_error *err)
{
	if (pages <= writer->reserved)
		return 0;
	if (pages > LAYOUT_LIMIT / STORE_PAGE / 2)
		return store_fail(err, EFBIG, "image %s", writer->name);
	uint64_t offset = LAYOUT_PAGES + writer->reserved * STORE_PAGE;
	int result = grow_blocks(writer, pages, err);
	if (result == 0)
		result = writer->scratch ? encode_reserve(writer, writer->reserved, pages, err) :
					   writer_back(writer, offset, (pages - writer->reserved) * STORE_PAGE, err);
	if (result < 0)
		return error_context(err, "image %s", writer->name);
	writer->reserved = pages;
	return 0;
}

/* --- opening ------------------------------------------------------------------------------- */

/* Commit order, step 1: what the file was before is none any more, durably, before a byte of it
 * changes. A fresh file has no slots to wipe. */
static int wipe_slots(struct image_writer *writer, struct fsnap_error *err)
{
	if (writer_back(writer, 0, LAYOUT_HEAD, err) < 0)
		return -1;
	if (!writer->claim.recycled)
		return 0;
	memset(medium_at(writer->medium, STORE_PAGE), 0, LAYOUT_HEAD - STORE_PAGE);
	return medium_persist(writer->medium, STORE_PAGE, LAYOUT_HEAD - STORE_PAGE, err);
}

static int write_super(struct image_writer *writer, struct fsnap_error *err)
{
	struct layout_super *super = &writer->super;
	memcpy(super->magic, LAYOUT_MAGIC, sizeof(super->magic));
	super->format = IMAGE_FORMAT;
	super->machine = LAYOUT_MACHINE;
	super->required = LAYOUT_LINEAGE | (writer_is_coded(writer) ? LAYOUT_CODED : 0);
	super->page_size = STORE_PAGE;
	super->block_pages = STORE_BLOCK_PAGES;
	if (getrandom(super->uuid, sizeof(super->uuid), 0) != sizeof(super->uuid))
		return fail(err, FSNAP_E_SYSTEM, errno, "getrandom");
	layout_seal_super(super);
	medium_copy(writer->medium, 0, super, sizeof(*super));
	return 0;
}

static int fill_in(struct image_writer *writer, uint64_t pages, struct fsnap_error *err)
{
	uint64_t bytes = LAYOUT_PAGES + (writer_is_coded(writer) ? 0 : pages * STORE_PAGE);
	if (pages > LAYOUT_LIMIT / STORE_PAGE / 2)
		return store_fail(err, EFBIG, "image %s", writer->name);
	if (writer_name_is_free(writer, err) < 0 ||
	    pool_claim(writer->store, bytes, &writer->claim, err) < 0)
		return -1;
	writer->medium = medium_open_write(writer->claim.fd, writer->claim.length,
					   writer->store->in_memory, err);
	if (!writer->medium || wipe_slots(writer, err) < 0 || write_super(writer, err) < 0)
		return -1;
	if (writer_is_coded(writer) && encode_begin(writer, err) < 0)
		return -1;
	return image_writer_reserve(writer, pages, err);
}

static struct image_writer *open_writer(struct store *store, const char *name, const struct image *replaces,
					uint64_t pages, const struct store_coding *coding, struct fsnap_error *err)
{
	if (store_check_name(name, err) < 0)
		return NULL;
	struct image_writer *writer = calloc(1, sizeof(*writer));
	if (!writer) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s", name);
		return NULL;
	}
	writer->store = store;
	writer->claim.fd = writer->files = writer->scratch_fd = -1;
	writer->replaces = replaces;
	if (coding)
		writer->coding = *coding;
	snprintf(writer->name, sizeof(writer->name), "%s", name);
	if (fill_in(writer, pages, err) < 0) {
		image_writer_abort(writer);
		return NULL;
	}
	return writer;
}

struct image_writer *image_writer_open(struct store *store, const char *name, uint64_t pages,
				       struct fsnap_error *err)
{
	return open_writer(store, name, NULL, pages, NULL, err);
}

struct image_writer *image_writer_open_coded(struct store *store, const char *name, uint64_t pages,
					     const struct store_coding *coding, struct fsnap_error *err)
{
	return open_writer(store, name, NULL, pages, coding, err);
}

struct image_writer *writer_replacing(struct store *store, const struct image *image, uint64_t pages,
				      const struct store_coding *coding, struct fsnap_error *err)
{
	return open_writer(store, image_name(image), image, pages, coding, err);
}

bool image_writer_recycled(const struct image_writer *writer)
{
	return writer->claim.recycled;
}

/* --- filling -------------------------------------------------------------------------------- */

uint64_t image_writer_take(struct image_writer *writer, uint64_t n)
{
	assert(n <= writer->reserved - writer->taken);
	uint64_t at = writer->taken;
	writer->taken += n;
	return at;
}

uint64_t image_writer_taken(const struct image_writer *writer)
{
	return writer->taken;
}

void *image_writer_page(struct image_writer *writer, uint64_t at)
{
	return writer->scratch ? medium_at(writer->scratch, at * STORE_PAGE) :
				 medium_at(writer->medium, LAYOUT_PAGES + at * STORE_PAGE);
}

void image_writer_checksum(struct image_writer *writer, uint64_t first_block, uint64_t n)
{
	uint64_t blocks = writer->scratch ? 0 : layout_blocks(writer->taken); /* frames have their own */
	for (uint64_t block = first_block; block < first_block + n && block < blocks; block++) {
		uint64_t pages = layout_block_pages(block, writer->taken);
		const void *bytes = image_writer_page(writer, block * STORE_BLOCK_PAGES);
		writer->blocks[block].checksum = layout_checksum(bytes, pages * STORE_PAGE);
		writer->blocks[block].pages = pages;
	}
}

void image_writer_changed(struct image_writer *writer, uint64_t at)
{
	writer->blocks[at / STORE_BLOCK_PAGES].pages = 0;
}

void image_writer_shrink(struct image_writer *writer, uint64_t taken)
{
	assert(taken <= writer->taken);
	/* Others will lie where the pages behind are now, before the image is committed (inherit.c). */
	for (uint64_t block = taken / STORE_BLOCK_PAGES; block < layout_blocks(writer->taken); block++)
		writer->blocks[block].pages = 0;
	writer->taken = taken;
}

void image_writer_summed(struct image_writer *writer, uint64_t first_block, uint64_t n, const uint64_t *sums)
{
	for (uint64_t i = 0; i < n; i++)
		writer->blocks[first_block + i] = (struct block_sum){ sums[i], STORE_BLOCK_PAGES };
}

int image_writer_lend(const struct image_writer *writer, uint64_t *offset)
{
	*offset = writer->scratch ? 0 : LAYOUT_PAGES;
	if (writer->scratch)
		return writer->scratch_fd;
	return writer->store->in_memory ? writer->claim.fd : -1;
}

/* Where the index is settled, neighbours by number may lie in different files (inherit.c): two pages that do
 * in fact lie side by side are two entries then, which costs 24 bytes. */
static bool continues(const struct page_run *before, const struct page_run *run)
{
	return before->space == run->space && before->page + before->npages == run->page &&
	       before->at + before->npages == run->at &&
	       before->npages <= UINT32_MAX - run->npages;
}

int image_writer_add_run(struct image_writer *writer, const struct page_run *run,
			 struct fsnap_error *err)
{
	if (writer->run_count && !writer->apart && continues(&writer->runs[writer->run_count - 1], run)) {
		writer->runs[writer->run_count - 1].npages += run->npages;
		return 0;
	}
	if (writer->run_count == writer->run_room) {
		size_t room = writer->run_room ? 2 * writer->run_room : 256;
		struct page_run *runs = realloc(writer->runs, room * sizeof(*runs));
		if (!runs)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its page index",
				    writer->name);
		writer->runs = runs;
		writer->run_room = room;
	}
	writer->runs[writer->run_count++] = *run;
	return 0;
}

int image_writer_put(struct image_writer *writer, uint32_t kind, bool required, const char *name,
		     xdrproc_t proc, void *object, struct fsnap_error *err)
{
	if (record_append(&writer->records, kind, required, name, proc, object, err) < 0)
		return error_context(err, "image %s", writer->name);
	return 0;
}

int image_writer_put_hint(struct image_writer *writer, uint32_t kind, const char *name, xdrproc_t proc,
			  void *object, struct fsnap_error *err)
{
	if (record_append(&writer->hints, kind, false, name, proc, object, err) < 0)
		return error_context(err, "image %s", writer->name);
	return 0;
}

/* --- giving up -------------------------------------------------------------------------------- */

void writer_free(struct image_writer *writer)
{
	medium_close(writer->medium);
	encode_end(writer);
	scope_close(&writer->claim.fd);
	scope_close(&writer->files);
	free(writer->blocks);
	free(writer->runs);
	free(writer->records.bytes);
	free(writer->hints.bytes);
	free(writer->lineage);
	free(writer);
}

void image_writer_abort(struct image_writer *writer)
{
	if (!writer)
		return;
	files_abort(writer);
	if (writer->claim.fd >= 0) {
		struct stat st;
		uint64_t length = fstat(writer->claim.fd, &st) == 0 ? (uint64_t)st.st_size : 0;
		if (writer->medium && writer->state == WRITER_COMMITTED)
			memset(medium_at(writer->medium, STORE_PAGE), 0, LAYOUT_HEAD - STORE_PAGE);
		if (length >= STORE_FILE_MIN && !writer->starved)
			pool_give(writer->store, &writer->claim.at, length, NULL);
		else
			unlinkat(writer->store->dir, writer->claim.at.path, 0);
	}
	writer_free(writer);
}
