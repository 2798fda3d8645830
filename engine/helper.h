/*
 * helper.h - processes that help a restore as long as it lasts: nobody's business but ours.
 */
#ifndef ENGINE_HELPER_H
#define ENGINE_HELPER_H

#include <sys/types.h>

struct restore;

/* A copy of this process, which nobody who traces us is given, that runs work(arg, our number), which never returns, with all signals blocked. No signal
 * tells of its end (wait for it with __WALL), and its number is none that the tree needs. -1 with errno. */
pid_t helper_spawn(const struct restore *restore, void (*work)(void *arg, pid_t parent), void *arg);

#endif
