/*
 * pty.h - what the files of the pty kind share: pty.c, pty_look.c (what is in it),
 * pty_fill.c (putting it back).
 */
#ifndef ENGINE_KINDS_PTY_H
#define ENGINE_KINDS_PTY_H

#include "engine/kinds/kinds.h"

/* Fills what waits in both directions, seen through the master's descriptor; returns 0, or 1 where
 * the kernel does not let us look. *slaves: how often the slave is open. */
int pty_look(const struct fd_view *fd, image_file_pty *state, unsigned *slaves, struct fsnap_error *err);

/* Puts it back, and leaves the terminal with the settings it had. `master` does not block. */
int pty_fill(int master, const image_file_pty *state);

/* A new descriptor of the slave side, whatever its name is. */
int pty_peer(int master, unsigned flags);

#endif
