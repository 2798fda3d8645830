/*
 * epoll_watch.h - what epoll.c wants of epoll_watch.c: one watch, added.
 */
#ifndef ENGINE_KINDS_EPOLL_WATCH_H
#define ENGINE_KINDS_EPOLL_WATCH_H

#include "engine/kinds/kinds.h"

/* A one-shot watch that has told, and is silent until the program arms it again. */
bool epoll_has_fired(const image_epoll_target *target);

/* Adds `file` to `epoll` under target->fd. -1 with errno set. */
int epoll_watch(int epoll, int file, const image_epoll_target *target);

#endif
