/*
 * Is a register looked at again? (engine/text.h, text_forgets_r10())  Code that does and code that does not,
 * read from this process.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include "engine/text.h"

#include <cmocka.h> /* last: its fail() is a macro */

/* Each begins where a thread would stand behind its call. */
__asm__(".text\n"
	"returns: cmp $-4095, %rax; jae 1f; ret; 1: mov $-1, %eax; ret\n"
	"overwrites: mov $1, %r10d; jmp *%r10\n"
	"calls: mov %eax, %edi; call returns; mov %r10, %rax; ret\n"
	"reads: test %eax, %eax; mov %r10, %rdi; ret\n"
	"one_branch_reads: test %eax, %eax; js 1f; ret; 1: lea 8(%rsp,%r10), %rax; ret\n"
	"calls_again: mov $232, %eax; syscall; jmp calls_again\n"
	"partly: mov $1, %r10b; ret\n"
	"loops: dec %rcx; jnz loops; ret\n"
	"leaves: jmp *%rax\n"
	"breaks: .byte 0x0f, 0xff, 0x06, 0x06\n");

extern const char returns[], overwrites[], calls[], reads[], one_branch_reads[], calls_again[], partly[], loops[],
	leaves[], breaks[];

static void test_code(void **state)
{
	(void)state;
	static const struct {
		const char *name, *code;
		int forgets;
	} cases[] = {
		{ "returns", returns, 1 },	{ "overwrites", overwrites, 1 },
		{ "calls", calls, 1 },		{ "loops", loops, 1 },
		{ "reads", reads, 0 },		{ "one branch reads", one_branch_reads, 0 },
		{ "calls again", calls_again, 0 }, { "partly", partly, 0 },
		{ "leaves", leaves, 0 },	{ "breaks", breaks, 0 },
	};
	struct text_cache cache = { 0 };
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	assert_true(mem >= 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		print_message("%s\n", cases[i].name);
		assert_int_equal(text_forgets_r10(&cache, mem, (uintptr_t)cases[i].code), cases[i].forgets);
	}
	text_cache_free(&cache);
	close(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_code) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
