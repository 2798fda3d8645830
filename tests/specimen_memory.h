/*
 * specimen_memory.h - what specimens of memory look at: what the kernel says of a
 * mapping (smaps), of a page (pagemap), and whether an access faults.
 */
#ifndef TESTS_SPECIMEN_MEMORY_H
#define TESTS_SPECIMEN_MEMORY_H

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "specimen.h"

enum { PAGE = 4096 };
#define MIB ((size_t)1 << 20)

/* Room of `size` bytes, aligned to `align`, with nothing in it and nothing close to it. */
static inline char *empty_place(size_t size, size_t align)
{
	size_t room = size + 2 * align;
	char *space = MUST(mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	MUST(munmap(space, room));
	return (char *)(((uintptr_t)space + 2 * align - 1) / align * align);
}

static inline char *anonymous(size_t pages, int protection)
{
	return MUST(mmap(NULL, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

/* --- smaps ------------------------------------------------------------------- */

/* The value behind "Key:" of the mapping that holds the address; "" if there is none. */
static inline const char *smaps_field(const void *address, const char *key, char *buf, size_t size)
{
	char line[4096];
	bool here = false;
	FILE *smaps = fopen("/proc/self/smaps", "re");
	buf[0] = '\0';
	while (smaps && fgets(line, sizeof(line), smaps)) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uintptr_t)address >= start && (uintptr_t)address < end;
		else if (here && strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') {
			snprintf(buf, size, "%s", line + strlen(key) + 1 + strspn(line + strlen(key) + 1, " \t"));
			buf[strcspn(buf, "\n")] = '\0';
			break;
		}
	}
	if (smaps)
		fclose(smaps);
	return buf;
}

static inline long smaps_number(const void *address, const char *key)
{
	char text[256];
	return atol(smaps_field(address, key, text, sizeof(text)));
}

/* Is this two-letter flag among the VmFlags of the mapping that holds the address? */
static inline bool has_flag(const void *address, const char *flag)
{
	char text[256];
	smaps_field(address, "VmFlags", text, sizeof(text));
	for (const char *at = text; (at = strstr(at, flag)); at++)
		if ((at == text || at[-1] == ' ') && (at[2] == ' ' || at[2] == '\0'))
			return true;
	return false;
}

/* --- faults ------------------------------------------------------------------ */

static sigjmp_buf fault_escape;
static volatile int fault_signal, fault_code;

static inline void fault_caught(int number, siginfo_t *info, void *context)
{
	(void)context;
	fault_signal = number;
	fault_code = info->si_code;
	siglongjmp(fault_escape, 1);
}

/* To be called once, before the accesses below. */
static inline void catch_faults(void)
{
	struct sigaction act = { .sa_sigaction = fault_caught, .sa_flags = SA_SIGINFO };
	MUST(sigaction(SIGSEGV, &act, NULL));
	MUST(sigaction(SIGBUS, &act, NULL));
}

/* The signal an access ends in, 0: it goes through. What is written is what was there. */
static inline int access_signal(volatile char *at, bool writing)
{
	fault_signal = fault_code = 0;
	if (sigsetjmp(fault_escape, 1) == 0) {
		if (writing)
			*at = *at;
		else
			(void)*at;
	}
	return fault_signal;
}

/* --- pagemap ------------------------------------------------------------------ */

/* The entry of /proc/self/pagemap: Documentation/admin-guide/mm/pagemap.rst. */
static inline uint64_t pagemap_entry(const void *address)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, &entry, 8, (off_t)((uintptr_t)address / PAGE * 8)) != 8)
		entry = 0;
	if (fd >= 0)
		close(fd);
	return entry;
}

static inline bool page_present(const void *address)
{
	return pagemap_entry(address) >> 63;
}

#endif
