/*
 * machine.h - what an image needs of the machine that restores it.
 */
#ifndef ENGINE_MACHINE_H
#define ENGINE_MACHINE_H

#include "engine/model.h"
#include "image.h"
#include "restorer/memory.h"
#include "store/error.h"

/* Describes this machine. The vDSO group is that of the calling process; every process of one
 * kernel has the same. */
int machine_describe(image_machine *machine, struct fsnap_error *err);

/* Has this machine what the program needs? IMAGE_CPU, naming what is missing. */
int machine_check(const image_machine *machine, struct fsnap_error *err);

/* Where the vDSO group lies in the calling process; malloc'ed. */
struct memory_special *machine_specials(size_t *n, struct fsnap_error *err);

/* foreign.c: an image of another kernel build. *redirection is filled, and *foreign set, where calls of its vDSO have
 * to be led to this kernel's, the `n` specials `here`. KERNEL_LACKS where that cannot be. */
int machine_redirect(const struct model *model, const struct memory_special *here, size_t n,
		     struct vdso_redirection *redirection, bool *foreign, struct fsnap_error *err);

/* Raises our soft limit on open files, which anybody may, to the hard one. */
void machine_raise_files(void);

#endif
