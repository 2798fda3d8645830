/*
 * takeback.h - names that a restore makes and that would outlive it.
 *
 * What hangs on descriptors and tasks goes with them when a restore fails; a message queue's name, a socket's file
 * or a device that persists would stay.  Whoever makes one says so (restore_takes_back, kinds.h); if the restore
 * fails, they go again, the last first.
 */
#ifndef ENGINE_TAKEBACK_H
#define ENGINE_TAKEBACK_H

struct restore;

/* Removes all that was noted. */
void takeback(struct restore *restore);

/* They stay. */
void takeback_forget(struct restore *restore);

#endif
