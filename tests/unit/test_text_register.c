/*
 * engine/text.h. Is a register looked at again? (text_forgets())  Code that does and code that does not,
 * read from this process. And is what text_find() finds by its bytes what a disassembler says, too?
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
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
	"idle: mov %edi, %edx; ret\n"
	"user: mov (%rdx), %rax; ret\n"
	"calls_idle: mov %eax, %edi; call idle; mov %rdx, %rax; ret\n"
	"calls_user: mov %eax, %edi; call user; ret\n"
	"calls_somebody: call *%rbx; ret\n"
	"half: mov $1, %dh; ret\n"
	"breaks: .byte 0x0f, 0xff, 0x06, 0x06\n");

extern const char returns[], overwrites[], calls[], reads[], one_branch_reads[], calls_again[], partly[], loops[],
	calls_idle[], calls_user[], calls_somebody[], half[], leaves[], breaks[];

static void test_code(void **state)
{
	(void)state;
	static const struct {
		const char *name, *code;
		int forgets;
		enum text_register reg;
	} cases[] = {
		{ "returns", returns, 1, TEXT_R10 },	{ "overwrites", overwrites, 1, TEXT_R10 },
		{ "calls", calls, 1, TEXT_R10 },		{ "loops", loops, 1, TEXT_R10 },
		{ "reads", reads, 0, TEXT_R10 },		{ "one branch reads", one_branch_reads, 0, TEXT_R10 },
		{ "calls again", calls_again, 0, TEXT_R10 }, { "partly", partly, 0, TEXT_R10 },
		{ "leaves", leaves, 0, TEXT_R10 },	{ "breaks", breaks, 0, TEXT_R10 },
		{ "returns, rdx", returns, 1, TEXT_RDX },
		{ "calls who has no use for it", calls_idle, 1, TEXT_RDX },
		{ "hands it on", calls_user, 0, TEXT_RDX },
		{ "hands it on, r8", calls_user, 1, TEXT_R8 },
		{ "calls somebody", calls_somebody, 0, TEXT_R8 },
		{ "calls somebody, r10", calls_somebody, 1, TEXT_R10 },
		{ "half", half, 0, TEXT_RDX },
	};
	struct text_cache cache = { 0 };
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	assert_true(mem >= 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		print_message("%s\n", cases[i].name);
		assert_int_equal(text_forgets(&cache, mem, (uintptr_t)cases[i].code, cases[i].reg), cases[i].forgets);
	}
	text_cache_free(&cache);
	close(mem);
}

static void assert_instruction(struct text_cache *cache, uint64_t *at, const char *expected)
{
	char seen[64];
	size_t length = text_instruction(cache, (const uint8_t *)(uintptr_t)*at, 16, *at, seen, sizeof(seen));
	assert_string_equal(seen, expected);
	*at += length;
}

/* Each form of the way home, alone in a page of its own, behind bytes that are nearly it. */
static void test_found(void **state)
{
	(void)state;
	static const struct {
		const char *code, *mov;
		size_t n;
	} cases[] = {
		{ "\x0f\x05\x0f\x06\xb8\x0f\x00\x00\x00\x0f\x05\x90\x0f\x05\xc3", "mov eax, 0xf", 15 },
		{ "\xb8\x0f\x01\x00\x00\x0f\x05\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05\xc3", "mov rax, 0xf", 17 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct text_cache cache = { 0 };
		struct text_gadgets found;
		struct fsnap_error err = { 0 };
		/* Across the border of two reads. */
		size_t size = 64 << 10, at = (16 << 10) - 10;
		uint8_t *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(page, MAP_FAILED);
		memcpy(page + at, cases[i].code, cases[i].n);
		const image_vma vma = { .start = (uintptr_t)page, .end = (uintptr_t)page + size,
					.prot = PROT_READ | PROT_EXEC, .kind = VMA_ANON };
		assert_int_equal(text_find(getpid(), &vma, 1, &found, &cache, &err), 0);
		assert_true(found.syscall_any >= vma.start && found.syscall_ret && found.sigreturn);
		assert_instruction(&cache, &found.syscall_any, "syscall");
		assert_instruction(&cache, &found.syscall_ret, "syscall");
		assert_instruction(&cache, &found.syscall_ret, "ret");
		assert_instruction(&cache, &found.sigreturn, cases[i].mov);
		assert_instruction(&cache, &found.sigreturn, "syscall");
		text_cache_free(&cache);
		munmap(page, size);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_code), cmocka_unit_test(test_found) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
