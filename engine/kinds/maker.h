/*
 * maker.h - in whose name a socket is made.
 */
#ifndef ENGINE_KINDS_MAKER_H
#define ENGINE_KINDS_MAKER_H

#include "engine/kinds/kinds.h"

/* The process that holds a descriptor, as one that may have made it. */
int maker_of(const struct fd_view *fd, image_maker *maker, struct fsnap_error *err);

/* socket(2) in the name of somebody who may do what we may not (a group of net.ipv4.ping_group_range);
 * close-on-exec; -1 with errno. */
int socket_as(const image_maker *maker, int family, int type, int protocol);

#endif
