/*
 * test_store.h - a store to try things in, and an image whose every byte is known from a seed.
 * Included once by each test_store*.c, after cmocka.h.
 */
#ifndef TEST_STORE_H
#define TEST_STORE_H

#define MB(n) ((uint64_t)(n) << 20)

static char world[64];		    /* a fresh directory per test */
static const char *world_base = ""; /* on which medium */

static inline int world_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int world_set_up(void **state)
{
	(void)state;
	medium_persisted_hook = NULL; /* a failed test may have left its own */
	snprintf(world, sizeof(world), "%s/fsnap-store-XXXXXX", world_base);
	return mkdtemp(world) ? 0 : -1;
}

static inline int world_tear_down(void **state)
{
	(void)state;
	return nftw(world, world_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline const char *world_path(const char *below)
{
	static char path[4][512];
	static unsigned next;
	char *at = path[next++ % 4];
	snprintf(at, sizeof(path[0]), "%s/%s", world, below);
	return at;
}

static inline struct store *world_store(enum store_mode mode)
{
	struct fsnap_error err = {0};
	struct store *store = store_open(world, mode, &err);
	if (!store)
		fail_msg("store_open: %s", err.message);
	return store;
}

/* --- the known image ----------------------------------------------------------- */

/* Page i of the image of a seed. */
static inline void seed_page(uint8_t *page, unsigned seed, uint64_t i)
{
	uint64_t word = (uint64_t)seed * 0x9e3779b97f4a7c15u + i;
	for (size_t at = 0; at < STORE_PAGE; at += sizeof(word)) {
		word = word * 6364136223846793005u + 1442695040888963407u;
		memcpy(page + at, &word, sizeof(word));
	}
}

/* Its runs: even pages are space 1, odd ones space 2, added in no good order; frame 0 is also page
 * 1000000 of space 7. */
static inline int seed_fill(struct image_writer *writer, unsigned seed, uint64_t pages,
		     struct fsnap_error *err)
{
	image_writer_take(writer, pages);
	for (uint64_t i = pages; i-- > 0;) {
		struct page_run run = {.page = 2 * i, .at = i, .npages = 1, .space = 1 + i % 2};
		seed_page(image_writer_page(writer, i), seed, i);
		if (image_writer_add_run(writer, &run, err) < 0)
			return -1;
	}
	struct page_run shared = {.page = 1000000, .at = 0, .npages = 1, .space = 7};
	if (pages && image_writer_add_run(writer, &shared, err) < 0)
		return -1;

	char host[32];
	snprintf(host, sizeof(host), "host-%u", seed);
	image_tree tree = {.root_pid = (int)seed, .comm = "worker", .host = host, .writer = "test",
			   .hold = "", .boot_id = ""};
	if (image_writer_put(writer, IMAGE_TREE, true, "tree", (xdrproc_t)xdr_image_tree, &tree,
			     err) < 0)
		return -1;
	for (unsigned i = 0; i < 3; i++) {
		image_file file = {.id = i, .kind = "pipe", .label = "pipe:[1]"};
		if (image_writer_put(writer, IMAGE_FILE, true, "file", (xdrproc_t)xdr_image_file,
				     &file, err) < 0)
			return -1;
	}
	return 0;
}

static inline int seed_write(struct store *store, const char *name, unsigned seed, uint64_t pages,
		      struct fsnap_error *err)
{
	struct image_writer *writer = image_writer_open(store, name, pages, err);
	if (!writer)
		return -1;
	if (seed_fill(writer, seed, pages, err) < 0) {
		image_writer_abort(writer);
		return -1;
	}
	return image_writer_commit(writer, NULL, err);
}

static inline void seed_make(struct store *store, const char *name, unsigned seed, uint64_t pages)
{
	struct fsnap_error err = {0};
	if (seed_write(store, name, seed, pages, &err) < 0)
		fail_msg("writing %s: %s", name, err.message);
}

static inline const char *seed_check_runs(const struct image *image, uint64_t pages)
{
	size_t even, odd, shared;
	const struct page_run *runs = image_runs(image, 1, &even);
	image_runs(image, 2, &odd);
	image_runs(image, 7, &shared);
	if (even != (pages + 1) / 2 || odd != pages / 2 || shared != (pages ? 1 : 0))
		return "number of runs";
	for (size_t i = 0; i < even; i++)
		if (runs[i].page != 4 * i || runs[i].at != 2 * i || runs[i].npages != 1)
			return "a run";
	return NULL;
}

/* NULL if the image is that of the seed to the last byte, else what differs. */
static inline const char *seed_check(const struct image *image, unsigned seed, uint64_t pages)
{
	uint8_t page[STORE_PAGE];
	if (image_pages(image) != pages)
		return "number of pages";
	for (uint64_t i = 0; i < pages; i++) {
		seed_page(page, seed, i);
		if (memcmp(page, image_page(image, i), sizeof(page)) != 0)
			return "content of a page";
	}
	if (image_verify_blocks(image, 0, image_blocks(image), NULL) < 0)
		return "checksum of a block";
	image_tree tree = {0};
	if (image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &tree, NULL) < 0)
		return "the tree record";
	bool same = tree.root_pid == (int)seed && strcmp(tree.comm, "worker") == 0;
	xdr_free((xdrproc_t)xdr_image_tree, &tree);
	for (unsigned i = 0; i < 3; i++) {
		image_file file = {0};
		if (image_get(image, IMAGE_FILE, i, (xdrproc_t)xdr_image_file, &file, NULL) < 0)
			return "a file record";
		same = same && file.id == i;
		xdr_free((xdrproc_t)xdr_image_file, &file);
	}
	return same ? seed_check_runs(image, pages) : "content of a record";
}

/* Opens an image by name (or path) that must be there and whole. */
static inline void seed_expect(struct store *store, const char *name, unsigned seed, uint64_t pages)
{
	struct fsnap_error err = {0};
	struct image *image = image_open(store, name, &err);
	if (!image)
		fail_msg("%s should open: %s", name ? name : "the newest", err.message);
	const char *differs = seed_check(image, seed, pages);
	image_close(image);
	if (differs)
		fail_msg("%s differs: %s", name ? name : "the newest", differs);
}

/* The code image_open() refuses with; a refusal always names the image. */
static inline int open_code(struct store *store, const char *name)
{
	struct fsnap_error err = {0};
	struct image *image = image_open(store, name, &err);
	if (image) {
		image_close(image);
		return FSNAP_E_OK;
	}
	assert_non_null(strstr(err.message, name));
	return err.code;
}

static inline unsigned files_in(const char *below)
{
	DIR *dir = opendir(world_path(below));
	unsigned count = 0;
	for (struct dirent *entry; dir && (entry = readdir(dir));)
		count += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return count;
}

/* Runs the tests on a disk and in memory; skips a medium that is not there. */
#define RUN_ON_BOTH_MEDIA(tests)                                                       \
	({                                                                             \
		int failed_tests = 0;                                                  \
		world_base = "/tmp";                                                   \
		failed_tests += cmocka_run_group_tests_name("on a disk", tests, NULL, NULL); \
		world_base = "/dev/shm";                                               \
		if (access(world_base, W_OK) == 0)                                     \
			failed_tests += cmocka_run_group_tests_name("in memory", tests, NULL, NULL); \
		else                                                                   \
			printf("skipped in memory: /dev/shm cannot be written\n");     \
		failed_tests;                                                          \
	})

/* Where an image has a page of a space; UINT64_MAX: nowhere. */
static inline uint64_t page_at(const struct image *image, uint32_t space, uint64_t page)
{
	size_t n;
	const struct page_run *runs = image_runs(image, space, &n);
	for (size_t i = 0; i < n; i++)
		if (page >= runs[i].page && page < runs[i].page + runs[i].npages)
			return runs[i].at + (page - runs[i].page);
	return UINT64_MAX;
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

#endif
