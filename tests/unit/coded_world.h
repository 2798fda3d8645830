/*
 * coded_world.h - images that are compressed, encrypted, or both, whose every byte is known; and their files, altered.
 * Included by test_store_coded*.c, after test_store.h.
 */
#ifndef CODED_WORLD_H
#define CODED_WORLD_H

#define SEED 11
#define PAGES 600 /* more than two blocks */
#define MARK "a very secret sentence, which is nowhere else"

static const struct store_coding codings[] = {
	{ STORE_ZSTD, 1, STORE_OPEN },	{ STORE_LZ4, 1, STORE_OPEN },	    { STORE_LZ4, 9, STORE_OPEN },
	{ STORE_ZSTD, -5, STORE_XCHACHA20 }, { STORE_PLAIN, 0, STORE_XCHACHA20 }, { STORE_LZ4, 1, STORE_AES256 },
	{ STORE_PLAIN, 0, STORE_AES256 },
};
#define CODINGS (sizeof(codings) / sizeof(codings[0]))
__attribute__((unused)) static const struct store_coding sealed = { STORE_ZSTD, 1, STORE_XCHACHA20 };

static inline const char *key_file(const char *name)
{
	struct fsnap_error err = { 0 };
	const char *path = world_path(name);
	if (access(path, F_OK) < 0 && key_make_image(path, &err) < 0)
		fail_msg("%s", err.message);
	return path;
}

static inline struct store *open_with(const char *key)
{
	struct store *store = world_store(STORE_WRITE);
	assert_int_equal(store_set_key(store, key, NULL), 0);
	return store;
}

static inline bool have(const struct store_coding *coding)
{
	return coding->cipher != STORE_AES256 || __builtin_cpu_supports("aes");
}

/* --- an image of which a part can be compressed --------------------------------------------------- */

static inline void fill_page(uint8_t *page, uint64_t i)
{
	seed_page(page, SEED, i);
	if (i % 3)
		for (size_t at = 0; at < STORE_PAGE; at += sizeof(MARK))
			snprintf((char *)page + at, STORE_PAGE - at, "%s", MARK);
}

static inline int put_image(struct image_writer *writer, uint64_t pages, struct fsnap_error *err)
{
	image_tree tree = { .root_pid = SEED, .comm = "worker", .host = MARK, .writer = "test", .hold = "", .boot_id = "" };
	struct page_run run = { .page = 5, .at = 0, .npages = (uint32_t)pages, .space = 1 };
	image_writer_take(writer, pages);
	for (uint64_t i = 0; i < pages; i++)
		fill_page(image_writer_page(writer, i), i);
	if (pages && image_writer_add_run(writer, &run, err) < 0)
		return -1;
	return image_writer_put(writer, IMAGE_TREE, true, "tree", (xdrproc_t)xdr_image_tree, &tree, err);
}

static inline void make(struct store *store, const char *name, const struct store_coding *coding, uint64_t pages)
{
	struct fsnap_error err = { 0 };
	struct image_writer *writer = image_writer_open_coded(store, name, pages, coding, &err);
	if (!writer || put_image(writer, pages, &err) < 0 || image_writer_commit(writer, NULL, &err) < 0)
		fail_msg("writing %s: %s", name, err.message);
}

/* NULL, or what differs. */
static inline const char *compare(struct image *image, uint64_t pages)
{
	uint8_t want[STORE_PAGE], read[STORE_PAGE];
	struct fsnap_error err = { 0 };
	image_tree tree = { 0 };
	if (image_pages(image) != pages || image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &tree, NULL) < 0)
		return "number of pages, or the tree record";
	bool same = strcmp(tree.host, MARK) == 0;
	xdr_free((xdrproc_t)xdr_image_tree, &tree);
	if (!same || image_verify_blocks(image, 0, image_blocks(image), &err) < 0)
		return same ? "blocks" : "the tree record";
	if (pages && image_prepare(image, 0, 1, &err) < 0) /* others when they are asked for */
		return "preparing";
	for (uint64_t i = pages; i-- > 0;) {
		struct image_place place = image_locate(image, i);
		fill_page(want, i);
		const void *page = image_page(image, i);
		if (!page || memcmp(page, want, STORE_PAGE) != 0)
			return "content of a page";
		if (pread(image_page_descriptor(image, 0), read, STORE_PAGE, (off_t)place.offset) != STORE_PAGE ||
		    memcmp(read, want, STORE_PAGE) != 0)
			return "a page read from its descriptor";
	}
	return NULL;
}

/* As the pager does. */
static inline void read_block_by_block(const struct image *image, uint64_t pages)
{
	struct fsnap_error err = { 0 };
	struct image_decoder *decoder = image_decoder_new(&err);
	uint8_t *stored = malloc(LAYOUT_BLOCK), *to = malloc(LAYOUT_BLOCK), want[STORE_PAGE];
	for (uint64_t block = 0; block < image_blocks(image); block++) {
		struct image_extent extent = image_block_extent(image, block);
		assert_true(extent.coded && extent.bytes <= LAYOUT_BLOCK);
		assert_int_equal(pread(extent.fd, stored, extent.bytes, (off_t)extent.offset), extent.bytes);
		if (image_decode_block(image, block, stored, to, decoder, &err) < 0)
			fail_msg("%s", err.message);
		for (uint64_t i = 0; i < layout_block_pages(block, pages); i++) {
			fill_page(want, block * STORE_BLOCK_PAGES + i);
			assert_memory_equal(to + i * STORE_PAGE, want, STORE_PAGE);
		}
		stored[extent.bytes / 2] ^= 4;
		assert_int_equal(image_decode_block(image, block, stored, to, decoder, NULL), -1);
	}
	image_decoder_free(decoder);
	free(stored);
	free(to);
}

static inline void expect(struct store *store, const char *name, uint64_t pages)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(store, name, &err);
	if (!image)
		fail_msg("%s: %s", name, err.message);
	const char *differs = compare(image, pages);
	if (differs)
		fail_msg("%s differs: %s", name, differs);
	if (image_is_coded(image))
		read_block_by_block(image, pages);
	image_close(image);
}

/* Opening it, or at the latest reading all of it, and with which code. */
static inline void expect_refused(struct store *store, const char *name, int code, const char *words)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(store, name, &err);
	if (image && image_verify_blocks(image, 0, image_blocks(image), &err) == 0 && image_hints(image, &err) == 0)
		fail_msg("%s is accepted (%s)", name, words);
	image_close(image);
	if (err.code != code || !strstr(err.message, words))
		fail_msg("expected %d '%s': %d %s", code, words, err.code, err.message);
}

/* --- the file ---------------------------------------------------------------------------------------- */

struct bytes {
	uint8_t *at;
	size_t n;
	struct layout_head head;
	char path[512];
};

static inline struct bytes load(const char *name)
{
	struct bytes bytes;
	struct stat st;
	snprintf(bytes.path, sizeof(bytes.path), "%s/images/%s.fsnap", world, name);
	cleanup_fd int fd = open(bytes.path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	bytes.n = (size_t)st.st_size;
	bytes.at = malloc(bytes.n);
	assert_int_equal(read(fd, bytes.at, bytes.n), bytes.n);
	memcpy(&bytes.head, bytes.at, sizeof(bytes.head));
	return bytes;
}

/* As somebody does who can compute checksums. */
static inline void save(struct bytes *bytes, struct layout_head head)
{
	layout_seal_super(&head.super);
	layout_seal_slot(&head.slot[0]);
	cleanup_fd int fd = open(bytes->path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, bytes->at, bytes->n, 0), bytes->n);
	assert_int_equal(pwrite(fd, &head, sizeof(head), 0), sizeof(head));
}

#endif
