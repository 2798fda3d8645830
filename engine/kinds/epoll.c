/*
 * epoll(7): which descriptors are watched, for what, under which number.
 *
 * The kernel knows a watch by file *and* by the number it was added under; later
 * epoll_ctl calls of the program use that number.  So at restore each file stands
 * at that number for the moment it is added.
 *
 * An edge-triggered watch tells once.  Whether it has told is only to be seen in the
 * kernel's list of what is to be reported (peek.h); where we may look, one that
 * has told is silent after a restore too, and reports come in the order they had.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/epoll_watch.h"
#include "engine/kinds/peek.h"
#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

static bool epoll_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[eventpoll]");
}

/* --- dump --------------------------------------------------------------------- */

/* linux/eventpoll.h since Linux 6.9 */
struct busy_poll {
	uint32_t usecs;
	uint16_t budget;
	uint8_t prefer, pad;
};
#define EPIOCSPARAMS_6_9 _IOW(0x8a, 1, struct busy_poll)
#define EPIOCGPARAMS_6_9 _IOR(0x8a, 2, struct busy_poll)

static void save_busy_poll(int fd, image_file_epoll *state)
{
	struct busy_poll params;
	if (fd < 0 || ioctl(fd, EPIOCGPARAMS_6_9, &params) < 0)
		return;
	state->busy_poll_usecs = params.usecs;
	state->busy_poll_budget = params.budget;
	state->prefer_busy_poll = params.prefer;
}

/* The list of struct epitem that the next epoll_wait looks at. */
static void save_ready(const struct fd_view *fd, image_file_epoll *state)
{
	enum { LIST, LINK, NUMBER, EVENT };
	struct peek_member at[] = {{"eventpoll", "rdllist", 0}, {"epitem", "rdllink", 0},
				   {"epitem", "ffd.fd", 0}, {"epitem", "event", 0}};
	struct peek *peek = dump_peek(fd->dump);
	uint64_t instance = peek && peek_layout(peek, at, 4) ? peek_private(peek, fd->dup) : 0;
	if (!instance)
		return;
	uint64_t head = instance + at[LIST].offset, link = peek_word(peek, head, 0);
	unsigned place = 0;
	for (unsigned n = 0; link && link != head && n <= state->targets.targets_len; n++) {
		uint64_t item = link - at[LINK].offset;
		struct epoll_event event;
		int number = (int)peek_half(peek, item, at[NUMBER].offset);
		if (!peek_bytes(peek, item + at[EVENT].offset, &event, sizeof(event)))
			return;
		for (unsigned i = 0; i < state->targets.targets_len; i++) {
			image_epoll_target *target = &state->targets.targets_val[i];
			if (target->fd != number || target->ready || target->data != event.data.u64)
				continue;
			target->ready = ++place;
			break;
		}
		link = peek_word(peek, link, 0);
	}
	state->seen = link == head;
}

static int epoll_save(const struct fd_view *fd, image_file *file, void *out,
		      struct fsnap_error *err)
{
	(void)file;
	image_file_epoll *state = out;
	static const char key[] = "\ntfd:";
	bool edges = false;
	for (const char *at = strstr(fd->info, key); at; at = strstr(at + 1, key)) {
		image_epoll_target *target = append(state->targets, targets);
		uint64_t data, ino;
		if (!target)
			return no_memory(err);
		if (sscanf(at, " tfd: %d events: %x data: %" SCNx64 " pos: %*d ino: %" SCNx64, &target->fd,
			   &target->events, &data, &ino) != 4)
			return refuse_fd(fd, err, "The kernel does not say what it watches.",
					 "an epoll instance");
		target->data = data;
		target->ino = ino;
		edges |= (target->events & EPOLLET) != 0;
	}
	save_busy_poll(fd->dup, state);
	if (edges)
		save_ready(fd, state);
	return 0;
}

/* A watch as kcmp(2) names it: the nth with this number in the epoll instance `slot.efd` of process `pid`. */
struct watch {
	pid_t pid;
	struct kcmp_epoll_slot slot;
	const struct process *holder; /* has the instance as well; NULL: only a message has it */
};

static bool watches(const struct watch *watch, pid_t pid, int fd)
{
	return syscall(SYS_kcmp, pid, watch->pid, KCMP_EPOLL_TFD, fd, &watch->slot) == 0;
}

/* Nearly always the descriptor of that number in the same process; else anybody's, or what only a message
 * has. A socket has an inode of its own, which fdinfo shows: no need to ask, which takes the longer the more
 * is watched. */
static unsigned watched_file(struct dump *dump, const struct watch *watch, const struct process *likely, uint64_t ino)
{
	char socket[64];
	unsigned id = likely ? dump_file_of_fd(dump, likely, (int)watch->slot.tfd) : 0;
	image_file *file = NULL;
	dump_file_by_id(dump, id, &file);
	snprintf(socket, sizeof(socket), "socket:[%" PRIu64 "]", ino);
	if (file && !strcmp(file->label, socket))
		return id;
	if (id && watches(watch, likely->live, (int)watch->slot.tfd))
		return id;
	for (id = 1; dump_file_by_id(dump, id, &file); id++) {
		pid_t pid;
		int fd;
		dump_holder(dump, file, &pid, &fd);
		if (watches(watch, pid, fd))
			return id;
	}
	return 0;
}

/* Some are added by the process that has the instance, which must have the file under that number, too. */
static bool is_added_inside(struct dump *dump, unsigned id)
{
	image_file *file;
	const void *state = dump_file_by_id(dump, id, &file);
	const struct file_kind *kind = file_kind_find(file->kind);
	return kind == &kind_signalfd || (kind->is_late && kind->is_late(state));
}

static int link_target(struct dump *dump, const image_file *file, struct watch *watch,
		       image_epoll_target *target, struct fsnap_error *err)
{
	int ignored;
	const struct process *likely = watch->holder ? watch->holder : dump_carrier(dump, file, &ignored);
	image_file *watched;
	watch->slot.tfd = (__u32)target->fd;
	target->file = watched_file(dump, watch, likely, target->ino);
	if (!target->file)
		return refuse_file(dump, file, err,
				   "The program closed a descriptor it still watches, and a process "
				   "outside the tree has it open: dump that one, too.",
				   "it watches a file (added as descriptor %d) that no process of the tree "
				   "has open", target->fd);
	if (!is_added_inside(dump, target->file))
		return 0;
	dump_file_by_id(dump, target->file, &watched);
	if (!watch->holder && file_kind_find(watched->kind)->make_late)
		return 0; /* epoll_complete() */
	if (!watch->holder)
		return refuse_file(dump, file, err, "Let the program receive the message before the dump.",
				   "it watches %s (added as descriptor %d), which only a process that has it can "
				   "add", watched->label, target->fd);
	if (dump_file_of_fd(dump, watch->holder, target->fd) != target->file)
		return refuse_file(dump, file, err, "Let it watch the descriptor that the program has open.",
				   "it watches %s that was closed as descriptor %d", watched->label, target->fd);
	return 0;
}

/* Several files may be watched under one number: all but the last were closed there since. */
static int epoll_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_epoll *state = out;
	int epoll, highest = 0;
	struct watch watch = {.holder = file_holder(dump, file, &epoll)};
	dump_holder(dump, file, &watch.pid, &epoll);
	for (unsigned i = 0; i < state->targets.targets_len; i++)
		if (state->targets.targets_val[i].fd > highest)
			highest = state->targets.targets_val[i].fd;
	cleanup_free uint32_t *seen = calloc((size_t)highest + 1, sizeof(*seen));
	if (!seen)
		return no_memory(err);
	watch.slot.efd = (__u32)epoll;
	for (unsigned i = 0; i < state->targets.targets_len; i++) {
		image_epoll_target *target = &state->targets.targets_val[i];
		watch.slot.toff = seen[target->fd]++;
		if (link_target(dump, file, &watch, target, err) < 0)
			return -1;
	}
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

static int epoll_make(struct restore *restore, const image_file *file, const void *in,
		      struct fsnap_error *err)
{
	const image_file_epoll *state = in;
	struct busy_poll params = {state->busy_poll_usecs, (uint16_t)state->busy_poll_budget,
				   (uint8_t)state->prefer_busy_poll, 0};
	int fd = epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: epoll", file->id);
	if ((params.usecs || params.budget || params.prefer) && ioctl(fd, EPIOCSPARAMS_6_9, &params) < 0)
		restore_note(restore, "an epoll instance does not poll devices busily any more: %s",
			     strerror(errno));
	return fd;
}

/* A signalfd wakes whoever waits on the signal queue of the process that called epoll_ctl
 * (fs/signalfd.c, signalfd_poll): that must be one of the program. */
static bool tied_to_caller(struct restore *restore, const image_epoll_target *target)
{
	const image_file *file;
	return restore_file_by_id(restore, target->file, &file) && !strcmp(file->kind, kind_signalfd.name);
}

static bool is_late(struct restore *restore, const image_epoll_target *target)
{
	const image_file *file;
	const void *state = restore_file_by_id(restore, target->file, &file);
	const struct file_kind *kind = state ? file_kind_find(file->kind) : NULL;
	return kind && kind->is_late && kind->is_late(state);
}

/* The order in which watches come back. */
enum turn {
	FIRED,	/* one-shot watches, each made to fire: nothing else may be ready yet */
	TOLD,	/* edge-triggered watches that have told: all told again, to nobody */
	READY,	/* what the program is to be told, in the order it had */
	OTHERS,
	LATER,	/* by a process of the tree */
};

struct turn_of {
	enum turn turn;
	const image_epoll_target *target;
};

static enum turn turn_of(struct restore *restore, const image_file_epoll *state,
			 const image_epoll_target *target)
{
	if (tied_to_caller(restore, target) || is_late(restore, target))
		return LATER;
	if (epoll_has_fired(target))
		return FIRED;
	if (target->ready)
		return READY;
	return state->seen && (target->events & EPOLLET) ? TOLD : OTHERS;
}

static int by_turn(const void *a, const void *b)
{
	const struct turn_of *one = a, *two = b;
	if (one->turn != two->turn)
		return one->turn < two->turn ? -1 : 1;
	if (one->target->ready != two->target->ready)
		return one->target->ready < two->target->ready ? -1 : 1;
	return one->target < two->target ? -1 : one->target > two->target;
}

static void take_reports(int epoll)
{
	struct epoll_event told[64];
	while (epoll_wait(epoll, told, 64, 0) > 0)
		;
}

static int watch_one(struct restore *restore, const image_file *file, int epoll,
		     const image_epoll_target *target, struct fsnap_error *err)
{
	if (target->fd < 0 || target->fd == INT_MAX)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u: epoll: watches descriptor %d", file->id,
			    target->fd);
	if (epoll_watch(epoll, restore_fd(restore, target->file), target) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno,
			    "file %u: epoll: watch file %u as descriptor %d", file->id, target->file,
			    target->fd);
	return 0;
}

static int epoll_connect(struct restore *restore, const image_file *file, const void *in, int fd,
			 struct fsnap_error *err);

/* What an instance inside another will report is looked at when that is made. */
static int connect_inner(struct restore *restore, const image_epoll_target *target,
			 struct fsnap_error *err)
{
	const image_file *file;
	const void *state = restore_file_by_id(restore, target->file, &file);
	if (!state || strcmp(file->kind, kind_epoll.name))
		return 0;
	return epoll_connect(restore, file, state, restore_fd(restore, file->id), err);
}

/* Was it connected before? Marked by file id; an image that says otherwise could go in circles. */
static bool is_connected(struct restore *restore, unsigned id)
{
	void **slot = restore_scratch(restore, &kind_epoll);
	unsigned highest = id;
	const image_file *file;
	for (size_t i = 0; !*slot && restore_file_state(restore, kind_epoll.name, i, &file); i++)
		highest = file->id > highest ? file->id : highest;
	if (!*slot && !(*slot = calloc((size_t)highest + 1, 1)))
		return false;
	bool *done = *slot;
	return done[id] || (done[id] = true, false);
}

static int epoll_connect(struct restore *restore, const image_file *file, const void *in, int fd,
			 struct fsnap_error *err)
{
	const image_file_epoll *state = in;
	unsigned n = state->targets.targets_len;
	if (is_connected(restore, file->id))
		return 0;
	cleanup_free struct turn_of *turns = malloc((n + 1) * sizeof(*turns));
	if (!turns)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "file %u: epoll", file->id);
	for (unsigned i = 0; i < n; i++) {
		const image_epoll_target *target = &state->targets.targets_val[i];
		turns[i] = (struct turn_of){turn_of(restore, state, target), target};
		if (connect_inner(restore, target, err) < 0)
			return -1;
	}
	qsort(turns, n, sizeof(*turns), by_turn);
	for (unsigned i = 0; i < n; i++) {
		if (turns[i].turn != LATER && watch_one(restore, file, fd, turns[i].target, err) < 0)
			return -1;
		if (turns[i].turn == TOLD && (i + 1 == n || turns[i + 1].turn != TOLD))
			take_reports(fd);
	}
	return 0;
}

static void watch_inside(struct plans *plans, uint32_t task, int fd, const image_epoll_target *target)
{
	struct epoll_event event = {.events = target->events, .data.u64 = target->data};
	plan_note(plans, "epoll: watch descriptor %d", target->fd);
	plan_call(plans, task, SYS_epoll_ctl, IMM(fd), IMM(EPOLL_CTL_ADD), IMM(target->fd),
		  DATA(plans_data(plans, &event, sizeof(event), 4)));
}

static void epoll_settle(struct restore *restore, const image_file *file, const void *in,
			 struct plans *plans, uint32_t task, int fd)
{
	(void)file;
	const image_file_epoll *state = in;
	for (unsigned i = 0; i < state->targets.targets_len; i++)
		if (tied_to_caller(restore, &state->targets.targets_val[i]))
			watch_inside(plans, task, fd, &state->targets.targets_val[i]);
}

static void epoll_settle_late(struct restore *restore, const image_file *file, const void *in,
			      struct plans *plans, uint32_t task, int fd)
{
	(void)file;
	const image_file_epoll *state = in;
	for (unsigned i = 0; i < state->targets.targets_len; i++)
		if (is_late(restore, &state->targets.targets_val[i]))
			watch_inside(plans, task, fd, &state->targets.targets_val[i]);
}

/* Of those that only messages have. */
static int epoll_complete(struct restore *restore, struct fsnap_error *err)
{
	const image_file *file;
	const image_file_epoll *state;
	for (size_t i = 0; (state = restore_file_state(restore, kind_epoll.name, i, &file)); i++)
		for (unsigned j = 0; j < state->targets.targets_len && !restore_is_held(restore, file->id); j++) {
			const image_epoll_target *target = &state->targets.targets_val[j];
			if (is_late(restore, target) && (restore_arrived(restore, target->file, file->id, err) < 0 ||
							 watch_one(restore, file, restore_fd(restore, file->id), target, err) < 0))
				return restore_blame(restore, file, err);
		}
	return 0;
}

const struct file_kind kind_epoll = {
	.connect_rank = 1,
	.settle_late = epoll_settle_late,
	.name = "epoll",
	.keeps = "what is watched, under which number, for what; what has been told and what is still to be, in "
		 "order; one-shot, edge-triggered, exclusive; parameters of busy polling",
	.refuses = "watches of closed descriptors that only a process outside the tree still has; in a message: "
		   "watches of a signalfd",
	.shown_by = "event_epoll*",
	.xdr = (xdrproc_t)xdr_image_file_epoll,
	.matches = epoll_matches,
	.save = epoll_save,
	.save_links = epoll_save_links,
	.make = epoll_make,
	.connect = epoll_connect,
	.settle = epoll_settle,
	.complete = epoll_complete,
};
