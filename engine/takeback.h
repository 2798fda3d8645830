/*
 * takeback.h - names that a restore makes and that would outlive it.
 *
 * What hangs on descriptors and tasks goes with them when a restore fails or is killed; a message queue's name, a
 * System V object, a socket's file or a device that persists would stay.  Whoever is about to make one says so
 * (restore_takes_back, kinds.h); if the restore fails, they go again, the last first.  If it is killed, a guard
 * does that, a process of its own that holds nothing else: it comes into being with the first such name, and trees that
 * need none have none.
 */
#ifndef ENGINE_TAKEBACK_H
#define ENGINE_TAKEBACK_H

struct restore;

/* Removes all that was noted. */
void takeback(struct restore *restore);

/* The tree is about to live on without us: they stay, even if we are killed now. */
void takeback_keep(struct restore *restore);

/* The end: the guard goes, and the list with it. */
void takeback_forget(struct restore *restore);

#endif
