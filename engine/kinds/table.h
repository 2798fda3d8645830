/*
 * table.h - the kinds among themselves; nobody outside this folder includes it.
 */
#ifndef ENGINE_KINDS_TABLE_H
#define ENGINE_KINDS_TABLE_H

#include "engine/kinds/kinds.h"

extern const struct file_kind kind_external, kind_proc, kind_memfd, kind_stdio, kind_device, kind_pipe, kind_regular,
	kind_eventfd, kind_epoll, kind_timerfd, kind_signalfd, kind_unix, kind_inet, kind_netlink, kind_packet, kind_tcp,
	kind_pidfd, kind_namespace, kind_userfaultfd, kind_pty, kind_inotify, kind_fanotify, kind_mqueue, kind_bpf,
	kind_uring, kind_tun, kind_unsupported;

/* A descriptor of the tree that is this file; NULL: there is none. */
const struct process *file_holder(struct dump *dump, const image_file *file, int *fd);

/* One of the terminals there are, not the master side of one. */
bool is_terminal(const struct fd_view *fd);

#endif
