/*
 * touch.h - which parts of which files a tree reads or maps while it is watched.
 *
 * A watch belongs to whoever started it and ends with it, unless it is pinned: then what it has seen stays, under
 * a directory of a BPF file system (bpffs), and others may open and read it. It goes on seeing reads and faults as
 * long as somebody keeps it.
 */
#ifndef BPF_TOUCH_H
#define BPF_TOUCH_H

#include <poll.h>
#include <stddef.h>
#include <sys/types.h>

#include "bpf/touch_shape.h"
#include "store/error.h"

struct touch_watch;

/* Watches these processes and whatever they fork from now on. NULL: this kernel or this caller may not. */
struct touch_watch *touch_watch_start(const pid_t *tgids, size_t n, struct fsnap_error *err);

/* Makes it outlive us. `dir` must not exist, its parent must be on a bpffs. */
int touch_watch_pin(struct touch_watch *watch, const char *dir, struct fsnap_error *err);

/* At what it looks; at everything from its start on. */
enum touch_look { TOUCH_NOTHING, TOUCH_FAULTS, TOUCH_ALL };
int touch_watch_look(struct touch_watch *watch, enum touch_look look, struct fsnap_error *err);

/* Looks, and looks away for a while whenever there is more to see than may be paid for. Returns which of `ends` is
 * ready (poll(2)); -1: it cannot go on. */
int touch_watch_keep(struct touch_watch *watch, struct pollfd *ends, size_t n);

/* What a process needs that keeps it: at most TOUCH_DESCRIPTORS. Returns how many. */
#define TOUCH_DESCRIPTORS 7
size_t touch_watch_descriptors(const struct touch_watch *watch, int *fds);
int touch_watch_spent(const struct touch_watch *watch); /* the one that tells of spent budgets */

/* A pinned one, to read. NULL, err untouched and errno ENOENT: there is none. */
struct touch_watch *touch_watch_open(const char *dir, struct fsnap_error *err);

/* Ends a pinned watch. */
int touch_watch_unpin(const char *dir, struct fsnap_error *err);

void touch_watch_close(struct touch_watch *watch);

/* Every range that was touched, in no order. Ends early, and returns it, when a visit returns other
 * than 0. The ranges go on counting. */
typedef int touch_visit(void *arg, const struct touch_key *key, const struct touch_range *range);
int touch_watch_read(struct touch_watch *watch, touch_visit *visit, void *arg, struct fsnap_error *err);

/* Path of a file from the root of its file system, "/b/c"; -1: not known. */
int touch_watch_path(struct touch_watch *watch, const struct touch_file *file, char *path, size_t size);

#endif
