/*
 * epoll(7): which descriptors are watched, for what, under which number.
 *
 * The kernel knows a watch by file *and* by the number it was added under; later
 * epoll_ctl calls of the program use that number.  So at restore each file stands
 * at that number for the moment it is added.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* What stays of `events` when a one-shot watch has fired (fs/eventpoll.c, EP_PRIVATE_BITS). */
#define EP_PRIVATE ((unsigned)(EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE))

static bool epoll_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[eventpoll]");
}

/* --- dump --------------------------------------------------------------------- */

static int epoll_save(const struct fd_view *fd, image_file *file, void *out,
		      struct fsnap_error *err)
{
	(void)file;
	image_file_epoll *state = out;
	static const char key[] = "\ntfd:";
	for (const char *at = strstr(fd->info, key); at; at = strstr(at + 1, key)) {
		image_epoll_target *target = append(state->targets, targets);
		uint64_t data;
		if (!target)
			return no_memory(err);
		if (sscanf(at, " tfd: %d events: %x data: %" SCNx64, &target->fd, &target->events,
			   &data) != 3)
			return refuse_fd(fd, err, "The kernel does not say what it watches.",
					 "an epoll instance");
		target->data = data;
	}
	return 0;
}

/* A watch as kcmp(2) names it: the nth with this number in the epoll instance `epoll` of `process`. */
struct watch {
	const struct process *process;
	struct kcmp_epoll_slot slot;
};

static bool watches(const struct watch *watch, const struct process *process, int fd)
{
	return syscall(SYS_kcmp, process->pid, watch->process->pid, KCMP_EPOLL_TFD, fd,
		       &watch->slot) == 0;
}

/* Nearly always the descriptor of that number in the same process; else anybody's. */
static unsigned watched_file(struct dump *dump, const struct watch *watch)
{
	unsigned id = dump_file_of_fd(dump, watch->process, (int)watch->slot.tfd);
	if (id && watches(watch, watch->process, (int)watch->slot.tfd))
		return id;
	const struct tree *tree = dump_tree(dump);
	for (size_t i = 0; i < tree->n_processes; i++) {
		const struct process *process = tree->processes[i];
		for (unsigned j = 0; j < process->image.fds.fds_len; j++)
			if (watches(watch, process, process->image.fds.fds_val[j].fd))
				return process->image.fds.fds_val[j].file;
	}
	return 0;
}

static int epoll_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_epoll *state = out;
	int epoll = -1;
	struct watch watch = {.process = file_holder(dump, file, &epoll)};
	for (unsigned i = 0; i < state->targets.targets_len; i++) {
		image_epoll_target *target = &state->targets.targets_val[i];
		watch.slot = (struct kcmp_epoll_slot){.efd = (__u32)epoll, .tfd = (__u32)target->fd};
		for (unsigned j = 0; j < i; j++)
			watch.slot.toff += state->targets.targets_val[j].fd == target->fd;
		target->file = watch.process ? watched_file(dump, &watch) : 0;
		if (!target->file)
			return refuse_file(dump, file, err,
					   "The program closed a descriptor it still watches, and a "
					   "process outside the tree has it open: dump that one, too.",
					   "it watches a file (added as descriptor %d) that no process "
					   "of the tree has open", target->fd);
	}
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

static int epoll_make(struct restore *restore, const image_file *file, const void *state,
		      struct fsnap_error *err)
{
	(void)restore;
	(void)state;
	int fd = epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: epoll", file->id);
	return fd;
}

/* The soft limit of the restoring process may be lower than that of the saved one was. */
static int dup_to(int fd, int number)
{
	if (dup2(fd, number) == number)
		return number;
	struct rlimit old, wide = {.rlim_cur = (rlim_t)number + 1};
	if (errno != EBADF || getrlimit(RLIMIT_NOFILE, &old) < 0)
		return -1;
	wide.rlim_max = old.rlim_max > wide.rlim_cur ? old.rlim_max : wide.rlim_cur;
	if (setrlimit(RLIMIT_NOFILE, &wide) < 0)
		return -1;
	int moved = dup2(fd, number);
	int saved = errno;
	setrlimit(RLIMIT_NOFILE, &old);
	errno = saved;
	return moved;
}

/* A one-shot watch that had fired is silent until the program arms it again. Only firing makes
 * one so: it is offered everything, alone in the instance, and taken. */
static int silence(int epoll, const image_epoll_target *target)
{
	struct epoll_event all = {.events = (target->events & EP_PRIVATE) | EPOLLIN | EPOLLOUT |
					    EPOLLRDHUP | EPOLLPRI,
				  .data.u64 = target->data};
	struct epoll_event none = {.events = target->events, .data.u64 = target->data}, fired;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, target->fd, &all) < 0)
		return -1;
	if (epoll_wait(epoll, &fired, 1, 0) > 0)
		return 0;
	return epoll_ctl(epoll, EPOLL_CTL_MOD, target->fd, &none);
}

static bool has_fired(const image_epoll_target *target)
{
	return (target->events & EPOLLONESHOT) && !(target->events & ~EP_PRIVATE);
}

static int watch_at_its_number(int epoll, const image_epoll_target *target)
{
	if (has_fired(target))
		return silence(epoll, target);
	struct epoll_event event = {.events = target->events, .data.u64 = target->data};
	return epoll_ctl(epoll, EPOLL_CTL_ADD, target->fd, &event);
}

static int add(int epoll, int file, const image_epoll_target *target)
{
	/* Whatever has the number here, the epoll instance and the file included, moves aside. */
	cleanup_fd int watcher = fcntl(epoll, F_DUPFD_CLOEXEC, target->fd + 1);
	cleanup_fd int aside = fcntl(target->fd, F_DUPFD_CLOEXEC, target->fd + 1);
	int flags = fcntl(target->fd, F_GETFD);
	if (watcher < 0)
		watcher = fcntl(epoll, F_DUPFD_CLOEXEC, 0); /* beyond the limit */
	if (watcher < 0 || (file != target->fd && dup_to(file, target->fd) < 0))
		return -1;
	int result = watch_at_its_number(watcher, target), saved = errno;
	if (file == target->fd)
		return result;
	if (aside >= 0) {
		dup2(aside, target->fd);
		fcntl(target->fd, F_SETFD, flags);
	} else {
		close(target->fd);
	}
	errno = saved;
	return result;
}

static bool tied_to_caller(struct restore *restore, const image_epoll_target *target)
{
	const image_file *file;
	for (size_t i = 0; restore_file_state(restore, kind_signalfd.name, i, &file); i++)
		if (file->id == target->file)
			return true;
	return false;
}

static int epoll_connect(struct restore *restore, const image_file *file, const void *in, int fd,
			 struct fsnap_error *err)
{
	const image_file_epoll *state = in;
	for (int fired = 1; fired >= 0; fired--) { /* those first: see silence() */
		for (unsigned i = 0; i < state->targets.targets_len; i++) {
			const image_epoll_target *target = &state->targets.targets_val[i];
			if (has_fired(target) != (bool)fired || tied_to_caller(restore, target))
				continue;
			if (target->fd < 0 || target->fd == INT_MAX)
				return fail(err, FSNAP_E_IMAGE_CORRUPT, 0,
					    "file %u: epoll: watches descriptor %d", file->id, target->fd);
			if (add(fd, restore_fd(restore, target->file), target) < 0)
				return fail(err, FSNAP_E_RESTORE_STEP, errno,
					    "file %u: epoll: watch file %u as descriptor %d",
					    file->id, target->file, target->fd);
		}
	}
	return 0;
}

/* A signalfd wakes whoever waits on the signal queue of the process that called epoll_ctl
 * (fs/signalfd.c, signalfd_poll): that must be one of the program. */
static void epoll_settle(struct restore *restore, const image_file *file, const void *in,
			 struct plans *plans, uint32_t task, int fd)
{
	(void)file;
	const image_file_epoll *state = in;
	for (unsigned i = 0; i < state->targets.targets_len; i++) {
		const image_epoll_target *target = &state->targets.targets_val[i];
		if (!tied_to_caller(restore, target))
			continue;
		struct epoll_event event = { .events = target->events, .data.u64 = target->data };
		plan_note(plans, "epoll: watch signalfd %d", target->fd);
		plan_call(plans, task, SYS_epoll_ctl, IMM(fd), IMM(EPOLL_CTL_ADD), IMM(target->fd),
			  DATA(plans_data(plans, &event, sizeof(event), 4)));
	}
}

const struct file_kind kind_epoll = {
	.name = "epoll",
	.keeps = "what is watched, under which number, for what; one-shot and edge-triggered",
	.refuses = "watches of closed descriptors that only a process outside the tree still has",
	.shown_by = "event_epoll*",
	.xdr = (xdrproc_t)xdr_image_file_epoll,
	.matches = epoll_matches,
	.save = epoll_save,
	.save_links = epoll_save_links,
	.make = epoll_make,
	.connect = epoll_connect,
	.settle = epoll_settle,
};
