/*
 * inotify.h - what inotify.c shares with inotify_look.c and inotify_queue.c.
 */
#ifndef ENGINE_KINDS_INOTIFY_H
#define ENGINE_KINDS_INOTIFY_H

#include "engine/kinds/kinds.h"

/* Linux 4.17, CONFIG_CHECKPOINT_RESTORE: the number the next watch gets. */
#define INOTIFY_SET_NEXT_WD _IOW('I', 0, int32_t)

/* Dump: what waits in the queue, and the number the next watch would get; 1 where the kernel does
 * not let us look. */
int inotify_look(const struct fd_view *fd, image_file_inotify *state, struct fsnap_error *err);

/* Restore: the queue of a new instance that watches nothing yet becomes what it was. -1 with errno and
 * *step set. */
int inotify_fill(int fd, const image_file_inotify *state, const char **step);

#endif
