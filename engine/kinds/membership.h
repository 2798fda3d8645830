/*
 * membership.h - multicast groups that a socket has joined.
 */
#ifndef ENGINE_KINDS_MEMBERSHIP_H
#define ENGINE_KINDS_MEMBERSHIP_H

#include "engine/kinds/kinds.h"

struct memberships;

/* All groups that somebody in this network has joined, each on its interface. NULL with *err set. */
struct memberships *memberships_read(struct fsnap_error *err);

/* Which of them this socket has joined, with its filter of sources. */
int memberships_save(const struct fd_view *fd, const struct memberships *all, int family,
		     image_file_inet *state, struct fsnap_error *err);

/* Joins them again. */
void memberships_apply(struct restore *restore, const image_file_inet *state, int fd);

#endif
