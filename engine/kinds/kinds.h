/*
 * kinds.h - what every kind of open file offers, dump half and restore half.
 *
 * A kind is one file in this folder and one line in the table of kinds.c.
 *
 * Dump: for each descriptor of the tree the engine makes a `struct fd_view`; the
 * first kind whose `matches` says yes takes it.  Descriptors that are the same
 * open file description (kcmp(2)) are saved once.  A kind that meets state it
 * cannot keep calls refuse_fd(), or in save_links refuse_file().
 *
 * Restore: the restoring process makes every open file description itself, in
 * its own descriptor table (the "workshop"), and the new tasks inherit them and
 * move them to their numbers.  First `make` is called for every file in image
 * order, then `connect` for those that need others to exist.
 */
#ifndef ENGINE_KINDS_H
#define ENGINE_KINDS_H

#include <sys/stat.h>

#include "engine/fsnap.h"
#include "engine/tree.h"
#include "restorer/plan.h"
#include "store/store.h"

struct dump;
struct restore;

/* image_ghost.kind */
enum { GHOST_SHARED = 1, GHOST_DELETED, GHOST_MEMFD, GHOST_SYSV, GHOST_DIRECTORY };

/* One descriptor of a frozen process. */
struct fd_view {
	struct dump *dump;
	struct process *process;
	pid_t pid;		/* whose number `fd` is: the process, or ourselves (carrier) */
	int fd;			/* its number there */
	int dup;		/* a duplicate of it here (pidfd_getfd); -1 if O_PATH or not to be had */
	struct stat stat;	/* of what it refers to */
	unsigned flags;		/* O_*, from fdinfo */
	uint64_t pos;		/* from fdinfo */
	const char *link;	/* what /proc/PID/fd/N says */
	const char *info;	/* text of /proc/PID/fdinfo/N */
	struct socket_sort {	/* each -1 of what is no socket, or has no dup: every kind asks for it */
		int domain, type, protocol;
	} socket;
	/* Met in a message that waits in this socket: no process may have it. Else NULL. */
	const struct fd_view *carrier;
};

/* Room for the state struct of any kind: what `state` below points to. */
union file_state {
	image_file_regular regular;
	image_file_external external;
	image_file_proc proc;
	image_file_device device;
	image_file_stdio stdio;
	image_file_pipe pipe;
	image_file_eventfd eventfd;
	image_file_io_uring io_uring;
	image_file_epoll epoll;
	image_file_timerfd timerfd;
	image_file_signalfd signalfd;
	image_file_memfd memfd;
	image_file_pidfd pidfd;
	image_file_pty pty;
	image_file_tun tun;
	image_file_bpf bpf;
	image_file_fanotify fanotify;
	image_file_mqueue mqueue;
	image_file_inotify inotify;
	image_file_userfaultfd userfaultfd;
	image_file_namespace ns;
	image_file_unix unix_socket;
	image_file_inet inet;
	image_file_netlink netlink;
	image_file_packet packet;
	image_file_tcp tcp;
};

struct file_kind {
	const char *name; /* image_file.kind */
	/* For people (`fsnap help kinds`; engine/README.md shows the same). NULL: nothing. */
	const char *keeps, *refuses;
	const char *shown_by; /* the tests that show it: names or shell patterns, blanks between */
	xdrproc_t xdr;	  /* of its state struct */
	bool own_flags;	  /* make() leaves position and flags as they must be: the engine sets none */
	/* What ties files of this kind together (the pipe that an end belongs to, a socket's number):
	 * see dump_file_next(). May be NULL. */
	uint64_t (*key)(const void *state);
	bool (*matches)(const struct fd_view *fd);
	/* Fills *state (its struct in image.x: image_file_NAME, zeroed before); the engine has filled
	 * the rest of `file`. Strings and buffers in it are malloc'ed; the engine frees them with xdr_free. */
	int (*save)(const struct fd_view *fd, image_file *file, void *state, struct fsnap_error *err);
	/* Called when all files of the tree are saved and every image_process.fds is filled, where a
	 * kind needs to know the others. May be NULL. It may turn files into another kind (see
	 * stdio_become), so the engine looks at image_file.kind again before each call and when it
	 * encodes the states. */
	int (*save_links)(struct dump *dump, image_file *file, void *state, struct fsnap_error *err);
	/* restore_remap() for each path in a state: what --map has moved, what a policy denies. NULL: none. */
	int (*remap)(struct restore *restore, void *state, struct fsnap_error *err);
	/* Makes the open file description here; returns a new descriptor (close-on-exec), or -1.
	 * Not called for files that were given before (restore_give).
	 * The engine applies position and F_SETFL afterwards, unless own_flags; F_SETOWN and F_SETSIG are
	 * left to the processes, whose owners must exist first. */
	int (*make)(struct restore *restore, const image_file *file, const void *state,
		    struct fsnap_error *err);
	/* When every file exists: connections, queues, epoll targets. May be NULL. The descriptor
	 * table is the restore's own: numbers may be borrowed for a moment. */
	int (*connect)(struct restore *restore, const image_file *file, const void *state, int fd,
		       struct fsnap_error *err);
	/* Operations that must run in a process that has it, as descriptor `fd`, when all descriptors of
	 * that process are in place: what the kernel ties to the caller. Called for one of them. May be NULL. */
	void (*settle)(struct restore *restore, const image_file *file, const void *state,
		       struct plans *plans, uint32_t task, int fd);
	/* Has settle something to do that any process can do? For what only a message has, the root does it. NULL: no. */
	bool (*unsettled)(const void *state);
	/* As settle, in every task that has it, thread `tid`, when all threads of its process exist: what the
	 * kernel ties to a thread. `fd`: the first of its descriptors. May be NULL. */
	void (*settle_task)(struct restore *restore, const image_file *file, const void *state,
			    struct plans *plans, uint32_t task, int fd, pid_t tid);
	/* As settle_task, when everybody stands still and equip() was called: before privileges go. May be NULL. */
	void (*settle_parked)(struct restore *restore, const image_file *file, const void *state,
			      struct plans *plans, uint32_t task, int fd, pid_t tid);
	/* By this process, on a descriptor `fd` of ours: when everybody is born, late files are in place and all stand
	 * still; and when all plans are at their end. May be NULL. */
	int (*equip)(struct restore *restore, const image_file *file, const void *state, int fd, struct fsnap_error *err);
	int (*drive)(struct restore *restore, const image_file *file, const void *state, int fd, struct fsnap_error *err);
	/* connect() of a higher rank comes after all of lower ones: 1 for what looks at whether others
	 * are ready, 2 for what would notice that files are opened. */
	int connect_rank;
	/* Can it only be made when the whole tree is born (a pidfd)? Then make() gives a stand-in, and
	 * `arrive` adds operations that make the file, to the plan of one process that has it; it
	 * returns the slot with its descriptor. The engine puts it in place, there and elsewhere. NULL: no. */
	bool (*is_late)(const void *state);
	uint32_t (*arrive)(struct restore *restore, const image_file *file, const void *state,
			   struct plans *plans, uint32_t task);
	/* As make(), of what is late and only a message in a Unix socket has: the whole tree is there. Runs in the
	 * name of a user of the tree (engine/errand.h). NULL: such a one is refused. */
	int (*make_late)(struct restore *restore, const image_file *file, const void *state, struct fsnap_error *err);
	/* Restore: everybody is born, late files are there, and nobody runs; it may still fail. Called once for all, of
	 * kinds whose scratch was asked for. May be NULL. */
	int (*complete)(struct restore *restore, struct fsnap_error *err);
	/* As settle, when everybody is born and everything late has arrived. `settler`: the process that
	 * must do it, and make it if it is late; 0 or NULL: any that has it. May be NULL. */
	void (*settle_late)(struct restore *restore, const image_file *file, const void *state,
			    struct plans *plans, uint32_t task, int fd);
	pid_t (*settler)(const void *state);
	/* As settle, last of all, after privileges have gone: from here on time runs. May be NULL. */
	void (*arm)(struct restore *restore, const image_file *file, const void *state,
		    struct plans *plans, uint32_t task, int fd);
	/* dump --kill, when the image is durable, right before the tree is killed: what must not tell the
	 * world of that death. Steadfast (engine/steadfast.h); -1: the tree is let go instead. May be NULL.
	 * Like the next three it is called once for all, of kinds whose scratch was asked for. */
	int (*silence)(struct dump *dump, struct fsnap_error *err);
	/* Frees what the scratch of a dump, or of a restore, owns. May be NULL. */
	void (*dump_end)(void *scratch);
	void (*restore_end)(void *scratch);
	/* Restore: the tree is complete and runs at once; this can do no more than its best. May be NULL. */
	void (*release)(struct restore *restore);
};

/* State that is no open file, told of in the same words. */
struct other_kind {
	const char *name;
	const char *keeps, *refuses;
	const char *shown_by;
};

extern const struct other_kind *const other_kinds[]; /* NULL-ended */
extern const struct other_kind kind_aio, kind_seccomp, kind_scheduling, kind_cgroups, kind_clocks;

extern const struct file_kind *const file_kinds[]; /* NULL-ended; the order is the order of matching */
const struct file_kind *file_kind_find(const char *name);

/* As refuse_fd, for save_links: names a descriptor that is this file. Returns -1. */
int refuse_file(struct dump *dump, const image_file *file, struct fsnap_error *err, const char *hint,
		const char *what, ...) __attribute__((format(printf, 5, 6)));

/* The other end of this file is held by a process outside the tree: refuses, and says what helps;
 * `what` begins with "a ". Returns -1. */
int refuse_outside(struct dump *dump, const image_file *file, struct fsnap_error *err, const char *what, ...)
	__attribute__((format(printf, 4, 5)));

/* The number (0..2) under which the root holds this file as its stdio, or -1. */
int stdio_number(struct dump *dump, const image_file *file);

/* In save_links: the file turns out to be the tree's connection to the outside. Frees its state
 * and fills it anew as kind "stdio". */
int stdio_become(image_file *file, void *state, int number, struct fsnap_error *err);

/* Restoring descriptor `fd` of the root onto a file of kind "stdio": which descriptor of the
 * restoring process it should be, -1: the file itself. A terminal held three times may have become
 * three different streams (redirected output). */
int stdio_source(const image_file_stdio *state, int fd);

/* Restoring the leader of a session: operations that give the session its terminal (at once after
 * setsid; whoever it forks then has it, too), and put a group of it in the foreground (when all groups
 * are there). Both use descriptors of the workshop. terminals_of: is its terminal in the image? */
bool terminals_of(struct restore *restore, pid_t session);
void terminals_take(struct restore *restore, pid_t session, struct plans *plans, uint32_t task);
void terminals_foreground(struct restore *restore, pid_t session, struct plans *plans, uint32_t task);

/* --- what kinds may ask of a dump (engine/dump_ask.c) ------------------------ */

/* err = UNSUPPORTED "process 12 (comm): descriptor 5 (link): <what>" with the hint. Returns -1. */
int refuse_fd(const struct fd_view *fd, struct fsnap_error *err, const char *hint,
	      const char *what, ...) __attribute__((format(printf, 4, 5)));

/* The tree being saved, root first. */
const struct tree *dump_tree(struct dump *dump);

/* A slot for a kind's own memory during a dump, freed with free() at its end. *slot is NULL at first. */
void **dump_scratch(struct dump *dump, const struct file_kind *kind);

const struct fsnap_dump_options *dump_options(const struct dump *dump);

/* Name of the table that holds packets back (image_tree.hold), TCP_HOLD_NAME bytes. */
char *dump_hold(struct dump *dump);

/* Adds a line to the report: what a restore will do differently. Deduplicated. */
void dump_note(struct dump *dump, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The name by which the user declared this descriptor external (--external), or NULL. */
const char *dump_external(const struct fd_view *fd);

/* Fills identity for an open file (absolute path as the process sees it, dev, ino, size, mtime);
 * `fd` is ours: fd_view.dup.
 * a file without a name (deleted) becomes a ghost whose content is stored. */
int dump_identity(struct dump *dump, struct process *process, int fd, const char *path,
		  image_identity *identity, struct fsnap_error *err);

/* The ghost's file was made with open(O_TMPFILE) and these flags: it can be given a name. */
void dump_linkable(struct dump *dump, unsigned ghost, unsigned flags);

/* Image id of the file that descriptor `fd` of the process is; 0 if it has none. */
unsigned dump_file_of_fd(struct dump *dump, const struct process *process, int fd);

/* Takes `fd`, a descriptor of ours that came out of a message peeked at in the socket `carrier`, and
 * returns the image id of that open file: one of the tree's, or one that is only in flight and is
 * saved now, by its own kind. 0 with *err set: it cannot be. May call save() of the caller's kind. */
unsigned dump_received(const struct fd_view *carrier, int fd, struct fsnap_error *err);

/* Where kcmp(2) finds a file: a process and its number there. It may be ours (dump_received). */
void dump_holder(struct dump *dump, const image_file *file, pid_t *pid, int *fd);

/* The process that has a socket in which a message waits that has this file, and its number there; NULL: no
 * message has it. */
const struct process *dump_carrier(struct dump *dump, const image_file *file, int *fd);

/* The saved file of this id (they count from 1), whatever its kind; NULL past the end. */
void *dump_file_by_id(struct dump *dump, unsigned id, image_file **file);

/* Every saved file of a kind, to search among: returns its state struct or NULL past the end. */
void *dump_file_state(struct dump *dump, const char *kind, size_t index, image_file **file);

/* The next saved file of that kind with this key (file_kind.key): its state, NULL when there are no
 * more. *at is 0 at first. For save_links, when all are saved. */
void *dump_file_next(struct dump *dump, const struct file_kind *kind, uint64_t key, size_t *at,
		     image_file **file);

/* Key/value scan of fdinfo text: the number (any base strtoull takes with base) behind "key:" and
 * blanks or tabs, at the beginning of a line. */
bool fdinfo_number(const char *info, const char *key, int base, uint64_t *value);

/* Is the ring of io_uring with this identity (bpf/async.h) among the files that were saved? */
bool uring_is_known(struct dump *dump, uint64_t identity);

/* What tells of requests of asynchronous I/O (bpf/async.h), loaded at the first call. */
struct async_reader *dump_async(struct dump *dump, struct fsnap_error *err);

/* --- what kinds may ask of a restore (engine/restore_ask.c) ------------------- */

/* Opens the file an identity names with these O_ flags, checking that it is of the type recorded; one
 * that has become shorter is noted in the report. Ghosts are rebuilt. */
int restore_open(struct restore *restore, const image_identity *identity, unsigned flags,
		 struct fsnap_error *err);

/* Where the process of a thread has mapped the file (VMA_RING), from this offset on and for so many bytes;
 * 0: nowhere. */
uint64_t restore_mapped(struct restore *restore, pid_t tid, unsigned file_id, uint64_t offset, uint64_t size);

/* The workshop's descriptor for an image_file id, -1 while it is not made. */
int restore_fd(struct restore *restore, unsigned file_id);

/* The number under which the process has it that makes it, or settles it. */
int restore_number_of(struct restore *restore, unsigned file_id);

/* A descriptor's number that no process has, another one for each file. */
int restore_spare_number(struct restore *restore, unsigned file_id);

/* A thread of the process whose plan `task` is, with the credentials that thread `tid` of the image is to have: operations
 * may be appended to its plan, which runs at restore_deputy_done(). */
uint32_t restore_deputy(struct restore *restore, struct plans *plans, uint32_t task, pid_t tid);
void restore_deputy_done(struct plans *plans, uint32_t task, uint32_t deputy);

/* When everybody is born: /proc/PID/mem of a process of the image, open for writing. */
int restore_memory(struct restore *restore, pid_t pid, struct fsnap_error *err);

/* Where data of plans (plans_data()) lies, here and in all tasks. */
uint64_t restore_shared(struct restore *restore, uint32_t data);

/* The tree's time namespace, to be duplicated; -1: it is ours. */
int restore_time_namespace(const struct restore *restore);

/* Is this file made when the tree is born (file_kind.is_late)? */
bool restore_is_late(struct restore *restore, unsigned file_id);

/* Has a process of the tree this file? Else only messages have it. */
bool restore_is_held(const struct restore *restore, unsigned file_id);

/* In complete(): the workshop's descriptor of a late file, to be sent again in a message that waits in the socket
 * `carrier`. -1 with *err set. */
int restore_arrived(struct restore *restore, unsigned file_id, unsigned carrier, struct fsnap_error *err);

/* What a process number of the image has become; whoever it is has been born. */
pid_t restore_number(const struct restore *restore, int number);

/* Hands over the open file description of another file of the image that came into being along
 * with this one (the other end of a pair). The engine owns `fd` from here on, treats it as what
 * make() of that file had returned, and calls its connect(). */
void restore_give(struct restore *restore, unsigned file_id, int fd);

/* The file of this id (they count from 1), whatever its kind; NULL past the end. */
const void *restore_file_by_id(struct restore *restore, unsigned id, const image_file **file);

/* Files of a kind in the image, made or not: state or NULL past the end. */
const void *restore_file_state(struct restore *restore, const char *kind, size_t index,
			       const image_file **file);

/* The next one of a kind with this key, made or not; as dump_file_next(). */
const void *restore_file_next(struct restore *restore, const struct file_kind *kind, uint64_t key,
			      size_t *at, const image_file **file);

/* Will the restored tree run beside its original, with other numbers? What has a name they share then. */
bool restore_is_beside(const struct restore *restore);

/* Content of a ghost as a new memfd/tmpfile descriptor positioned at 0; the same open file each time
 * is not promised, the same inode is. */
int restore_ghost(struct restore *restore, unsigned ghost_id, unsigned flags,
		  struct fsnap_error *err);

/* The error is about this file, whichever is being made or connected: puts the descriptor in front. Returns -1. */
int restore_blame(struct restore *restore, const image_file *file, struct fsnap_error *err);

/* Replaces a path of a state, which is malloc'ed, by where --map says it is now. */
int restore_remap(struct restore *restore, char **path, struct fsnap_error *err);
/* A path that --map does not move: may it be used here? */
int restore_may_use(struct restore *restore, const char *path, struct fsnap_error *err);

/* Replaces the port of an address (IPv4 or IPv6) by the one that --listen says it is now. */
void restore_move_port(struct restore *restore, char *address, unsigned length);
/* For messages: which port of the image's that was. */
uint16_t restore_port_before(const struct restore *restore, uint16_t port);

/* A slot for a kind's own memory during a restore, freed with free() at its end (e.g. pairs made
 * so far). *slot is NULL at first. */
void **restore_scratch(struct restore *restore, const struct file_kind *kind);

/* This name is about to be made, is not there now and outlives its descriptors: if the restore fails, or is
 * killed, remove(name) is called. */
void restore_takes_back(struct restore *restore, void (*remove)(const char *name), const char *name);
/* What was said last could not be made, or is without its name again. */
void restore_not_made(struct restore *restore);

const struct fsnap_restore_options *restore_options(const struct restore *restore);

/* image_tree.hold */
const char *restore_hold(const struct restore *restore);

void restore_note(struct restore *restore, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
