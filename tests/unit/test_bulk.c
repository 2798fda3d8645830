/*
 * Copying by threads inside (PLAN_BULK): what is copied, the sums, what becomes of windows and descriptors, and of
 * pages that are not there.
 */
#include "tests/unit/agent_world.h"

#include <sys/platform/x86.h>

#include "store/hash.h"

#define WINDOW (2u << 20)
#define PAGE 4096u
#define N_CHUNKS 3u
#define N_PIECES 7u
#define BLOCKS (WINDOW / PLAN_BULK_BLOCK)
enum { BULK_AT = 0, CHUNKS_AT = 512, PIECES_AT = 1024, SUMS_AT = 2048, N_HELPERS = 2 };

static int image; /* what is copied into; the helpers' process has it under the same number */
static char *memory;

/* Pages in disorder, not one piece as long as another; of the last chunk, one piece is a whole window. */
static const struct { uint32_t page, n; } laid[N_PIECES] = {
	{ 700, 1 }, { 5, 300 }, { 320, 211 }, /* 512 */
	{ 1000, 255 }, { 900, 2 }, { 0, 255 },
	{ 1200, 512 },
};
static const uint32_t first_of[N_CHUNKS] = { 0, 3, 6 };

static struct plan_bulk *bulk(void)
{
	return (struct plan_bulk *)data(BULK_AT);
}

static struct plan_chunk *chunk(uint32_t i)
{
	return (struct plan_chunk *)data(CHUNKS_AT) + i;
}

static void lay(unsigned vectors)
{
	struct plan_piece *pieces = (struct plan_piece *)data(PIECES_AT);
	*bulk() = (struct plan_bulk){ .n = N_CHUNKS, .vectors = vectors, .window = WINDOW,
				      .chunks = (uintptr_t)data(CHUNKS_AT), .pieces = (uintptr_t)data(PIECES_AT),
				      .sums = (uintptr_t)data(SUMS_AT) };
	memcpy(bulk()->secret, hash_secret(), PLAN_BULK_SECRET);
	for (uint32_t i = 0; i < N_CHUNKS; i++)
		*chunk(i) = (struct plan_chunk){ .offset = (uint64_t)WINDOW * (N_CHUNKS - i), .first = first_of[i] };
	for (uint32_t i = 0; i < N_PIECES; i++)
		pieces[i] = (struct plan_piece){ (uintptr_t)memory + laid[i].page * PAGE, laid[i].n * PAGE };
	ctl->lent[2] = image;
	for (uint32_t helper = 1; helper <= N_HELPERS; helper++)
		OP(PLAN_HELPER, IMM(helper), IMM(1));
	for (uint32_t helper = 1; helper <= N_HELPERS; helper++)
		OP(PLAN_JOIN, IMM(helper), IMM(1))->accept = ACCEPT_ANY;
	OP(PLAN_GIVE_BACK);
	for (uint32_t helper = 1; helper <= N_HELPERS; helper++) {
		plan_of(helper);
		OP(PLAN_BULK, DATA(BULK_AT))->accept = ACCEPT_ANY;
		CALL(SYS_exit_group, IMM(0));
	}
}

static void make_memory(void)
{
	uint64_t x = 88172645463325252;
	memory = mmap(NULL, 2048 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	for (size_t i = 0; i < 2048 * PAGE / 8; i++) {
		x ^= x << 13; /* xorshift64 */
		x ^= x >> 7;
		x ^= x << 17;
		((uint64_t *)memory)[i] = x;
	}
	image = memfd_create("image", MFD_CLOEXEC);
	assert_return_code(ftruncate(image, (N_CHUNKS + 1) * WINDOW), errno);
}

static void drop_memory(void)
{
	munmap(memory, 2048 * PAGE);
	close(image);
}

/* One that is mapped there still has its name in /proc. */
static bool is_left(pid_t pid)
{
	char path[64], line[512];
	bool found = false;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	cleanup_file FILE *maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps))
		found = found || strstr(line, "memfd:image");
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, image);
	return !maps || found || access(path, F_OK) == 0;
}

/* Helpers that nobody has waited for are some. */
static bool has_children(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	cleanup_file FILE *children = fopen(path, "re");
	return !children || fgetc(children) != EOF;
}

static void assert_chunk_is_there(uint32_t i)
{
	static char seen[WINDOW], wanted[WINDOW];
	size_t at = 0;
	for (uint32_t piece = first_of[i]; at < WINDOW; piece++) {
		memcpy(wanted + at, memory + laid[piece].page * PAGE, laid[piece].n * PAGE);
		at += laid[piece].n * PAGE;
	}
	assert_int_equal(at, WINDOW);
	assert_int_equal(pread(image, seen, WINDOW, (off_t)chunk(i)->offset), WINDOW);
	assert_memory_equal(seen, wanted, WINDOW);
	for (uint32_t block = 0; block < BLOCKS; block++)
		assert_true(((uint64_t *)data(SUMS_AT))[i * BLOCKS + block] ==
			    hash_bytes(wanted + block * PLAN_BULK_BLOCK, PLAN_BULK_BLOCK));
}

static void assert_copied(unsigned vectors)
{
	make_memory();
	lay(vectors);
	pid_t pid = spawn(0);
	assert_state(0, TASK_PARKED);
	assert_int_equal(bulk()->done, N_CHUNKS);
	for (uint32_t i = 0; i < N_CHUNKS; i++) {
		assert_int_equal(chunk(i)->copied, 1);
		assert_chunk_is_there(i);
	}
	assert_false(is_left(pid));
	assert_false(has_children(pid));
	drop_memory();
}

static void pages_and_their_sums_avx2(void **state)
{
	(void)state;
	if (!CPU_FEATURE_ACTIVE(AVX2))
		skip();
	assert_copied(VECTORS_AVX2);
}

static void pages_and_their_sums_avx512(void **state)
{
	(void)state;
	if (!CPU_FEATURE_ACTIVE(AVX512F))
		skip();
	assert_copied(VECTORS_AVX512);
}

/* A file that became shorter: its pages are asked for first, so that nobody dies of it. */
static void place_that_is_not_there_kills_nobody(void **state)
{
	(void)state;
	if (!CPU_FEATURE_ACTIVE(AVX2))
		skip();
	make_memory();
	lay(VECTORS_AVX2);
	assert_return_code(ftruncate(image, 2 * WINDOW), errno); /* the place of the last chunk is left */
	pid_t pid = spawn(0);
	assert_state(0, TASK_PARKED);
	assert_int_equal(chunk(0)->copied, 0);
	assert_int_equal(chunk(1)->copied, 0);
	assert_false(is_left(pid));
	drop_memory();
}

/* As if a thread of the program had unmapped it meanwhile: one helper ends of it, and that is all. */
static void pages_that_are_gone_kill_nobody_else(void **state)
{
	(void)state;
	if (!CPU_FEATURE_ACTIVE(AVX2))
		skip();
	make_memory();
	lay(VECTORS_AVX2);
	munmap(memory + 100 * PAGE, PAGE); /* of the first two chunks */
	pid_t pid = spawn(0);
	assert_state(0, TASK_PARKED);
	assert_int_equal(chunk(0)->copied, 0);
	assert_false(is_left(pid));
	assert_false(has_children(pid));
	drop_memory();
}

static void nothing_is_lent_nothing_is_copied(void **state)
{
	(void)state;
	make_memory();
	lay(VECTORS_AVX2);
	ctl->lent[2] = -1;
	assert_true(spawn(0) > 0);
	assert_state(0, TASK_PARKED);
	assert_int_equal(bulk()->next, 0);
	drop_memory();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(pages_and_their_sums_avx2),
		TEST(pages_and_their_sums_avx512),
		TEST(place_that_is_not_there_kills_nobody),
		TEST(pages_that_are_gone_kill_nobody_else),
		TEST(nothing_is_lent_nothing_is_copied),
	};
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
