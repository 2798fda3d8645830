/*
 * pty.h - what the files of the pty kind share: pty.c, pty_look.c (what is in it), pty_fill.c (putting it
 * back), pty_slave.c (the other side), pty_session.c (whose terminal it is).
 */
#ifndef ENGINE_KINDS_PTY_H
#define ENGINE_KINDS_PTY_H

#include "engine/kinds/kinds.h"

/* image_file_pty.side */
enum { PTY_MASTER = 1, PTY_SLAVE = 2, PTY_CONTROLLING = 3, PTY_HUNG_UP = 4 };

/* Fills what waits in both directions, seen through the master's descriptor; returns 0, or 1 where
 * the kernel does not let us look. *slaves: how often the slave is open. */
int pty_look(const struct fd_view *fd, image_file_pty *state, unsigned *slaves, struct fsnap_error *err);

/* Puts it back, and leaves the terminal with the settings it had. `master` does not block. */
int pty_fill(int master, const image_file_pty *state);

/* A new descriptor of the slave side, whatever its name is. */
int pty_peer(int master, unsigned flags);

/* The slave side by its name, as /dev/tty, or of a terminal whose master is gone; `flags` as open(2) had them. */
int pty_open_slave(int master, unsigned flags);
int pty_open_controlling(int master, unsigned flags);
int pty_open_hung_up(unsigned flags);

#endif
