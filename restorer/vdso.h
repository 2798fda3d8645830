/*
 * vdso.h - a program that knows the vDSO of another kernel build.
 *
 * The vDSO (vdso(7)) is code of the kernel in every process, and belongs to the running
 * kernel: it reads clock data that this kernel keeps in the pages beside it, [vvar], whose layout is
 * nobody else's business.  A program has looked its functions up when it started (by
 * AT_SYSINFO_EHDR of the auxiliary vector) and keeps their addresses; where C libraries keep
 * them is not known.  So on another kernel, these addresses must go on working:
 *
 *	new  the whole group of this kernel, its data beside it as it was, goes to free
 *	     addresses within reach of a jump;
 *	old  where the program knows the vDSO it finds it: the pages stored in the image, as
 *	     private memory, but each exported function begins with a jump to the function of the
 *	     same name in the new one.  Symbols, AT_SYSINFO_EHDR and unwind tables stay true.
 *	     A function this kernel does not have does its system call instead.
 *	data where the old data was there are pages of zeroes.  No old code is entered any more, but
 *	     a signal handler may return into the middle of it: the sequence count it compares has
 *	     changed, and a clock mode of 0 means that there is nothing to read without a system
 *	     call (VDSO_CLOCKMODE_NONE; lib/vdso/gettimeofday.c).
 *
 * Before a byte is overwritten the old code is disassembled: the entry must be the beginning
 * of an instruction, the function long enough, and nothing may jump into the bytes that change.
 * A thread that stood inside the old code cannot be taken along: see engine/foreign.c.
 */
#ifndef RESTORER_VDSO_H
#define RESTORER_VDSO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

#define VDSO_ENTRIES 32
#define VDSO_REACH 0x7ff00000ull /* bytes between the two that a jump can be sure to bridge */

struct vdso_entry {
	const char *name; /* in the old vDSO */
	uint64_t old;	  /* offset of its first byte there */
	bool found;	  /* does this kernel have it, and where? */
	uint64_t now;
	uint8_t stub[24]; /* if not: what is put there instead; n_stub 0: the old code stays */
	size_t n_stub;
};

/* How calls of an old vDSO are led to this kernel's. */
struct vdso_redirection {
	const uint8_t *old; /* the caller's: must live as long */
	size_t size;
	struct vdso_entry entries[VDSO_ENTRIES];
	size_t n_entries;
};

/* `old` comes from an image and is not believed; `now` is the one of this process, NULL: it has none.
 * KERNEL_LACKS where the old one cannot be redirected. */
int vdso_redirect(struct vdso_redirection *out, const void *old, size_t old_size, const void *now,
		  size_t now_size, struct fsnap_error *err);

/* Writes the old vDSO's pages as they must be where it lies at old_base and this kernel's at now_base. */
void vdso_patch(const struct vdso_redirection *redirection, uint64_t old_base, uint64_t now_base, uint8_t *to);

#endif
