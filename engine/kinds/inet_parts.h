/*
 * inet_parts.h - what inet.c is made of.
 */
#ifndef ENGINE_KINDS_INET_PARTS_H
#define ENGINE_KINDS_INET_PARTS_H

#include "engine/kinds/kinds.h"

/* queue, of UDP; notes what cannot be kept of others. */
int inet_save_queue(const struct fd_view *fd, image_file_inet *state, struct fsnap_error *err);

/* Delivers the queue to a socket that is bound and not connected yet; notes what is lost. */
void inet_fill_queue(struct restore *restore, const image_file_inet *state, int fd);

/* --- inet_held.c: what MSG_MORE and UDP_CORK hold back ----------------------------------- */

/* holds, held, held_to of UDP; notes that packets of others are lost. */
int inet_save_held(const struct fd_view *fd, image_file_inet *state, struct fsnap_error *err);

/* Writes it again to a socket that is otherwise complete; notes what is lost. */
void inet_hold_again(struct restore *restore, const image_file_inet *state, int fd);

#endif
