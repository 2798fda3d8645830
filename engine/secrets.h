/*
 * secrets.h - what a process has said that nobody is to keep a copy of.
 */
#ifndef ENGINE_SECRETS_H
#define ENGINE_SECRETS_H

#include "engine/dump.h"

/* Is the content of a mapping left out, because it was asked to be, and MADV_DONTDUMP says so? */
bool secrets_are_in(const struct dump *dump, const image_vma *vma);

/* What of it was copied while the tree ran, before it was said, is wiped in the image. */
void secrets_wipe(struct dump *dump, const struct process *process, const image_vma *vma);

/* When all is collected: what was left out stands in the notes. */
void secrets_note(struct dump *dump);

/* With respect_core_limit: -1 if a process is not to have core files made of it. Before the freeze: as far as /proc tells. */
int secrets_look(struct dump *dump, struct fsnap_error *err);
int secrets_check(struct dump *dump, struct fsnap_error *err);

#endif
