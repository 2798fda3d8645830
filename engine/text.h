/*
 * text.h - what can be run in a process without writing a byte of its text.
 *
 * System calls of the agent and the way home need three instruction sequences.
 * Nearly every program holds them already: in its dynamic linker, its libc, or,
 * linked statically, in itself.  They are searched in the process' own
 * executable pages by their bytes.
 */
#ifndef ENGINE_TEXT_H
#define ENGINE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "image.h"
#include "store/error.h"

/* Addresses in the process; 0: there is none. */
struct text_gadgets {
	uint64_t syscall_ret; /* syscall; ret */
	uint64_t sigreturn;   /* mov $15, %eax or %rax; syscall */
	uint64_t syscall_any; /* syscall, whatever follows */
};

struct text_known;

/*
 * What searches share: the disassembler, a buffer, and what was found in which
 * file, so that many processes with one libc search it once.  Start with zeroes;
 * text_cache_free() at the end.  One cache belongs to one tree: files are told
 * apart by image_vma.object.
 */
struct text_cache {
	size_t disassembler; /* csh; 0: not open yet */
	size_t detailed;     /* another, that tells which registers are used */
	uint8_t *buffer;
	struct text_known *known;
	size_t n_known;
};

void text_cache_free(struct text_cache *cache);

/*
 * Looks for the gadgets in the executable mappings among vmas[0..n), files first,
 * then the vDSO, then anonymous memory.  The process may be running: mapped files
 * do not change under it as a rule, and what was found is read again before it is
 * believed.  Returns 0 even if some are missing (their addresses are 0); -1 only
 * if the process cannot be read at all: NO_PROCESS, PERMISSION, NOMEM.
 */
int text_find(pid_t pid, const image_vma *vmas, size_t n, struct text_gadgets *out,
	      struct text_cache *cache, struct fsnap_error *err);

/* Are they still at their addresses? `mem` is the process' /proc/PID/mem. */
bool text_is_there(const struct text_gadgets *text, int mem);

/* Writes the first instruction of bytes[0..n), at `address`, as text ("mov eax, 0xe7") into buf.
 * Returns its length in bytes; 0, and "(bad)" in buf, where the bytes are no instruction. */
size_t text_instruction(struct text_cache *cache, const uint8_t *bytes, size_t n,
			uint64_t address, char *buf, size_t size);

/* text_register.c: does a thread that stands at this address never look at the register again, before it has another
 * value? false also where that is not certain. `mem` is the process' /proc/PID/mem. */
enum text_register { TEXT_R10, TEXT_RDX, TEXT_R8 };
bool text_forgets(struct text_cache *cache, int mem, uint64_t address, enum text_register reg);

#endif
