/*
 * The vDSO of another kernel build is led to this kernel's (restorer/vdso.h): a copy of this
 * process' own stands in for the old one, and is called after it was patched.
 */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#include "engine/machine.h"

#include <cmocka.h> /* last: its fail() is a macro */

static uint8_t *now;
static size_t size;

static int find_own(void **state)
{
	(void)state;
	size_t n;
	struct memory_special *specials = machine_specials(&n, NULL);
	for (size_t i = 0; specials && i < n; i++)
		if (strcmp(specials[i].name, "[vdso]") == 0) {
			now = (uint8_t *)specials[i].start;
			size = specials[i].end - specials[i].start;
		}
	free(specials);
	return now ? 0 : -1;
}

/* The old one, where a jump from it reaches the new one. */
static uint8_t *lay(const struct vdso_redirection *redirection)
{
	for (uint64_t away = 1 << 20; away < VDSO_REACH; away += 1 << 20) {
		uint8_t *at = mmap(now - away, size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (at != now - away)
			continue;
		vdso_patch(redirection, (uint64_t)at, (uint64_t)now, at);
		assert_int_equal(mprotect(at, size, PROT_READ | PROT_EXEC), 0);
		return at;
	}
	fail_msg("no room for a vDSO");
	return NULL;
}

static void *function(const struct vdso_redirection *redirection, uint8_t *at, const char *name)
{
	for (size_t i = 0; i < redirection->n_entries; i++)
		if (strstr(redirection->entries[i].name, name))
			return at + redirection->entries[i].old;
	return NULL;
}

static void call_all(const struct vdso_redirection *redirection, uint8_t *at)
{
	int (*get_time)(clockid_t, struct timespec *) = function(redirection, at, "clock_gettime");
	int (*get_day)(struct timeval *, void *) = function(redirection, at, "gettimeofday");
	time_t (*seconds)(time_t *) = function(redirection, at, "time");
	int (*cpu)(unsigned *, unsigned *, void *) = function(redirection, at, "getcpu");
	long (*dice)(void *, size_t, unsigned, void *, size_t) = function(redirection, at, "getrandom");
	struct timespec kernel, seen;
	struct timeval day;
	unsigned number = 99999, node = 99999;
	assert_non_null(get_time);
	assert_int_equal(get_time(CLOCK_MONOTONIC, &seen), 0);
	clock_gettime(CLOCK_MONOTONIC, &kernel);
	assert_in_range(kernel.tv_sec, seen.tv_sec, seen.tv_sec + 1);
	assert_int_equal(get_time(12345, &seen), -EINVAL);
	assert_int_equal(get_day(&day, NULL), 0);
	assert_in_range(day.tv_sec, time(NULL) - 1, time(NULL) + 1);
	if (seconds)
		assert_in_range(time(NULL), day.tv_sec - 1, day.tv_sec + 1); /* a tick behind (vdso's clock for whole seconds) */
	assert_int_equal(cpu(&number, &node, NULL), 0);
	assert_in_range(number, 0, 4095);
	if (!dice)
		return;
	uint64_t random[2] = { 0 };
	assert_int_equal(dice(random, sizeof(random), 0, NULL, 0), sizeof(random));
	assert_true(random[0] && random[1]);
}

static void jumps_lead_to_this_kernels(void **state)
{
	(void)state;
	struct fsnap_error err = { 0 };
	struct vdso_redirection redirection;
	if (vdso_redirect(&redirection, now, size, now, size, &err) != 0)
		fail_msg("%s", err.message);
	assert_in_range(redirection.n_entries, 4, VDSO_ENTRIES);
	uint8_t *at = lay(&redirection);
	for (size_t i = 0; i < redirection.n_entries; i++) {
		assert_true(redirection.entries[i].found);
		assert_int_equal(at[redirection.entries[i].old], 0xe9);
	}
	call_all(&redirection, at);
	munmap(at, size);
}

static void missing_functions_become_system_calls(void **state)
{
	(void)state;
	struct fsnap_error err = { 0 };
	struct vdso_redirection redirection;
	if (vdso_redirect(&redirection, now, size, NULL, 0, &err) != 0)
		fail_msg("%s", err.message);
	uint8_t *at = lay(&redirection);
	call_all(&redirection, at);
	long (*dice)(void *, size_t, unsigned, void *, size_t) = function(&redirection, at, "getrandom");
	if (dice)
		assert_int_equal(dice(NULL, 0, 0, at, (size_t)-1), -ENOSYS);
	munmap(at, size);
}

/* --- what cannot be patched is refused ----------------------------------------------------- */

static uint8_t *copy_of_own(void)
{
	uint8_t *copy = malloc(size);
	assert_non_null(copy);
	memcpy(copy, now, size);
	return copy;
}

static void expect_refused(uint8_t *old, const char *why)
{
	struct fsnap_error err = { 0 };
	struct vdso_redirection redirection;
	assert_int_equal(vdso_redirect(&redirection, old, size, now, size, &err), -1);
	assert_int_equal(err.code, FSNAP_E_KERNEL_LACKS);
	if (!strstr(err.message, why))
		fail_msg("expected \"%s\" in \"%s\"", why, err.message);
}

static Elf64_Shdr *section_of(uint8_t *old, uint32_t type, uint64_t flags)
{
	Elf64_Ehdr *header = (Elf64_Ehdr *)old;
	Elf64_Shdr *sections = (Elf64_Shdr *)(old + header->e_shoff);
	for (int i = 0; i < header->e_shnum; i++)
		if (sections[i].sh_type == type && (sections[i].sh_flags & flags) == flags)
			return &sections[i];
	fail_msg("the vDSO lacks a section");
	return NULL;
}

static Elf64_Sym *symbols_of(uint8_t *old, size_t *n)
{
	Elf64_Shdr *section = section_of(old, SHT_DYNSYM, 0);
	*n = section->sh_size / sizeof(Elf64_Sym);
	return (Elf64_Sym *)(old + section->sh_offset);
}

static void a_jump_behind_an_entry_is_seen(void **state)
{
	(void)state;
	size_t n;
	uint8_t *old = copy_of_own();
	Elf64_Shdr *text = section_of(old, SHT_PROGBITS, SHF_EXECINSTR);
	Elf64_Sym *symbols = symbols_of(old, &n);
	uint64_t first = UINT64_MAX;
	for (size_t i = 0; i < n; i++)
		if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_value < first)
			first = symbols[i].st_value;
	/* A short conditional jump, je, right behind what changes; and then one through a register. */
	assert_in_range(first, text->sh_addr, text->sh_addr + text->sh_size);
	memcpy(old + first, "\x0f\x1f\x44\x00\x00\x74\xfb", 7); /* nop of 5 bytes; je to first + 2 */
	expect_refused(old, "jumps behind its beginning");
	memcpy(old + first + 5, "\xff\xe0", 2);
	expect_refused(old, "jumps to is not known");
	memcpy(old + first + 5, "\x74\xf9", 2); /* to its beginning: that is a call of the function */
	struct vdso_redirection redirection;
	assert_int_equal(vdso_redirect(&redirection, old, size, now, size, NULL), 0);
	free(old);
}

static void short_and_crooked_functions_are_seen(void **state)
{
	(void)state;
	size_t n, i = 0;
	uint8_t *old = copy_of_own();
	Elf64_Sym *symbols = symbols_of(old, &n);
	while (ELF64_ST_TYPE(symbols[i].st_info) != STT_FUNC)
		i++;
	uint64_t value = symbols[i].st_value, length = symbols[i].st_size;
	for (size_t j = 0; j < n; j++)
		if (symbols[j].st_value == value)
			symbols[j].st_size = 4;
	expect_refused(old, "too short");
	for (size_t j = 0; j < n; j++)
		if (symbols[j].st_value == value) {
			symbols[j].st_size = length;
			symbols[j].st_value = value + 1;
		}
	memcpy(old + value, "\x0f\x1f\x44\x00\x00", 5);
	expect_refused(old, "no instruction begins there");
	free(old);
}

static void damage_is_survived(void **state)
{
	(void)state;
	uint8_t *old = malloc(size);
	uint64_t dice = 1;
	assert_non_null(old);
	for (int i = 0; i < 400; i++) {
		memcpy(old, now, size);
		for (int j = 0; j < 1 + i % 20; j++) {
			dice = dice * 6364136223846793005ull + 1442695040888963407ull;
			old[(dice >> 33) % (j % 2 ? size : 2048)] ^= (uint8_t)(1u << (dice >> 60 & 7));
		}
		struct fsnap_error err = { 0 };
		struct vdso_redirection redirection;
		if (vdso_redirect(&redirection, old, size, now, size, &err) != 0)
			continue;
		uint8_t *patched = malloc(size);
		vdso_patch(&redirection, 0x10000, 0x20000, patched);
		free(patched);
	}
	struct vdso_redirection redirection;
	assert_int_equal(vdso_redirect(&redirection, old, 16, now, size, NULL), -1);
	free(old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jumps_lead_to_this_kernels),
		cmocka_unit_test(missing_functions_become_system_calls),
		cmocka_unit_test(a_jump_behind_an_entry_is_seen),
		cmocka_unit_test(short_and_crooked_functions_are_seen),
		cmocka_unit_test(damage_is_survived),
	};
	return cmocka_run_group_tests(tests, find_own, NULL);
}
