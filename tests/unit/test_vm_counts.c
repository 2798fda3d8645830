/* Two counts of an address space: what moves them, and what does not. */
#include "bpf/vmas.h" /* before cmocka makes a macro of fail */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE ((size_t)4096)

static struct fsnap_error err;
static struct vmas_reader *reader;
static char *memory;

static struct vmas_counts counts(void)
{
	return vmas_counts(reader, getpid());
}

static int open_reader(void **state)
{
	(void)state;
	reader = vmas_open(&err);
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? -1 : 0;
}

static int close_reader(void **state)
{
	(void)state;
	vmas_close(reader);
	return 0;
}

static bool can(uint64_t count)
{
	if (reader && count)
		return true;
	print_message("%s: not here\n", reader ? "this count" : err.message);
	return false;
}

static void test_mappings(void **state)
{
	(void)state;
	if (!reader || !can(counts().locked))
		skip();
	struct vmas_counts before = counts();
	memory[0] = 1; /* a page, but no mapping */
	assert_true(counts().locked == before.locked);
	assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED), 0);
	assert_true(counts().locked == before.locked);

	assert_int_equal(mprotect(memory, PAGE, PROT_READ), 0);
	assert_true(counts().locked != before.locked);
	before = counts();
	char *more = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(more != MAP_FAILED && counts().locked != before.locked);
	before = counts();
	assert_int_equal(munmap(more, PAGE), 0);
	assert_true(counts().locked != before.locked);
	before = counts();
	assert_int_equal(madvise(memory, PAGE, MADV_DONTFORK), 0);
	assert_true(counts().locked != before.locked);
	before = counts();
	assert_true(sbrk((intptr_t)PAGE) != (void *)-1 && counts().locked != before.locked);
}

/* The stack grows by a page fault. */
static void test_stack(void **state)
{
	(void)state;
	if (!reader || !can(counts().locked))
		skip();
	struct vmas_counts before = counts();
	volatile char *deep = __builtin_alloca(1 << 20);
	deep[0] = 1;
	assert_true(counts().locked != before.locked);
}

static void test_pages(void **state)
{
	(void)state;
	if (!reader || !can(counts().taken_away))
		skip();
	char *page = memory + 2 * PAGE;
	page[0] = 1;
	struct vmas_counts before = counts();
	page[1] = 2;
	assert_int_equal(madvise(page, PAGE, MADV_DONTNEED), 0);
	assert_true(counts().taken_away != before.taken_away);
	page[0] = 1;
	before = counts();
	assert_int_equal(munmap(page, PAGE), 0);
	assert_true(counts().taken_away != before.taken_away);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_stack),
		cmocka_unit_test(test_pages),
	};
	return cmocka_run_group_tests(tests, open_reader, close_reader);
}
