/*
 * userfaultfd(2): page faults of a program's memory that the program handles itself.
 *
 * It belongs to the address space it was made in, so the process makes it anew, when all
 * of its memory is there: content first, then what is watched and what is protected.
 * Pages that were missing are missing; a thread that waits in a fault has been taken out
 * of it by the freeze, as by any signal, and faults again.
 *
 * The kernel does not tell whose memory a userfaultfd watches, nor which one watches a
 * mapping.  So it must be held by one process, and its memory is asked: registering again
 * what it watches already changes nothing, and what another one watches is refused (EBUSY;
 * fs/userfaultfd.c).
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/procfs.h"
#include "store/scope.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#define FEATURE_SHAKEN_HANDS (1u << 31) /* UFFD_FEATURE_INITIALIZED, the kernel's own */
#define CAP_SYS_PTRACE 19

static bool userfaultfd_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[userfaultfd]");
}

/* --- dump ---------------------------------------------------------------------- */

/* Whether it sees faults of the kernel, too, is not told: who is not allowed that has made one that does not. */
static bool must_be_user_mode(const struct process *process)
{
	cleanup_free char *text = procfs_read_once(AT_FDCWD, "/proc/sys/vm/unprivileged_userfaultfd", NULL, NULL);
	return !(process->tasks[0]->image.creds.effective >> CAP_SYS_PTRACE & 1) && !(text && text[0] == '1');
}

static int userfaultfd_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_userfaultfd *state = out;
	const char *line = strstr(fd->info, "API:\t"); /* version:features:what it can do */
	const char *features = line ? strchr(line + strlen("API:\t"), ':') : NULL;
	if (!features)
		return refuse_fd(fd, err, "The kernel does not say what it does.", "a userfaultfd");
	state->features = strtoull(features + 1, NULL, 16);
	state->user_mode_only = must_be_user_mode(fd->process);
	if (state->features & UFFD_FEATURE_EVENT_FORK)
		return refuse_fd(fd, err, "The kernel does not tell which children it watches by now.",
				 "a userfaultfd that follows forks");
	return 0;
}

static struct process *only_holder(struct dump *dump, const image_file *file, int *number)
{
	const struct tree *tree = dump_tree(dump);
	struct process *holder = NULL;
	for (size_t i = 0; i < tree->n_processes; i++) {
		const image_process *image = &tree->processes[i]->image;
		for (u_int j = 0; j < image->fds.fds_len; j++) {
			if (image->fds.fds_val[j].file != file->id)
				continue;
			if (holder && holder != tree->processes[i])
				return NULL;
			holder = tree->processes[i];
			*number = image->fds.fds_val[j].fd;
		}
	}
	return holder;
}

static void *append(void *array, u_int n, size_t size)
{
	return realloc(array, (n + 1) * size);
}

/* Spans that lie in a range. */
static int take_spans(const image_watch *range, const image_span *from, u_int n, u_int *count, image_span **spans)
{
	for (u_int i = 0; i < n; i++) {
		if (from[i].start < range->start || from[i].end > range->end)
			continue;
		image_span *more = append(*spans, *count, sizeof(**spans));
		if (!more)
			return -1;
		*spans = more;
		more[(*count)++] = from[i];
	}
	return 0;
}

static int take_range(image_file_userfaultfd *state, const struct userfaults *faults, u_int index)
{
	const image_watch *range = &faults->ranges[index].watch;
	image_watch *more = append(state->watches.watches_val, state->watches.watches_len, sizeof(*more));
	if (!more)
		return -1;
	state->watches.watches_val = more;
	more[state->watches.watches_len++] = *range;
	if (take_spans(range, faults->protected, faults->n_protected, &state->protected.protected_len,
		       &state->protected.protected_val) < 0)
		return -1;
	return take_spans(range, faults->present, faults->n_present, &state->present.present_len,
			  &state->present.present_val);
}

static int userfaultfd_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_userfaultfd *state = out;
	int number = -1;
	struct process *process = only_holder(dump, file, &number);
	if (!process)
		return refuse_file(dump, file, err,
				   "The kernel does not tell whose memory it watches: let only that process hold it.",
				   "a userfaultfd that several processes hold");
	struct userfaults *faults = &process->userfaults;
	cleanup_fd int fd = (int)syscall(SYS_pidfd_getfd, process->pidfd, number, 0);
	if (fd < 0)
		return fail(err, procfs_code(errno), errno, "process %d (%s): descriptor %d", process->pid,
			    process->comm, number);
	for (u_int i = 0; i < faults->n_ranges; i++) {
		const image_watch *range = &faults->ranges[i].watch;
		struct uffdio_register again = { .range = { range->start, range->end - range->start },
						 .mode = range->mode };
		if (faults->ranges[i].claimed || ioctl(fd, UFFDIO_REGISTER, &again) < 0)
			continue;
		faults->ranges[i].claimed = true;
		if (take_range(state, faults, i) < 0)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", file->label);
	}
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

static int userfaultfd_make(struct restore *restore, const image_file *file, const void *in,
			    struct fsnap_error *err)
{
	(void)restore;
	(void)in;
	int fd = eventfd(0, EFD_CLOEXEC); /* stands in until its process makes it */
	return fd < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: userfaultfd", file->id) : fd;
}

static bool userfaultfd_is_late(const void *state)
{
	(void)state;
	return true;
}

static void control(struct plans *plans, uint32_t task, uint32_t fd, unsigned long request, const void *argument,
		    size_t size)
{
	plan_call(plans, task, SYS_ioctl, SLOT(fd), IMM(request), DATA(plans_data(plans, argument, size, 8)));
}

static uint32_t userfaultfd_arrive(struct restore *restore, const image_file *file, const void *in,
				   struct plans *plans, uint32_t task)
{
	(void)restore;
	const image_file_userfaultfd *state = in;
	unsigned flags = O_CLOEXEC | (file->flags & O_NONBLOCK) | (state->user_mode_only ? UFFD_USER_MODE_ONLY : 0);
	plan_call(plans, task, SYS_userfaultfd, IMM(flags));
	uint32_t fd = plan_result(plans);
	struct uffdio_api api = { .api = UFFD_API, .features = state->features & ~(uint64_t)FEATURE_SHAKEN_HANDS };
	if (state->features & FEATURE_SHAKEN_HANDS)
		control(plans, task, fd, UFFDIO_API, &api, sizeof(api));
	for (u_int i = 0; i < state->present.present_len; i++) {
		const image_span *span = &state->present.present_val[i];
		plan_call(plans, task, SYS_madvise, IMM(span->start), IMM(span->end - span->start),
			  IMM(MADV_POPULATE_READ));
	}
	for (u_int i = 0; i < state->watches.watches_len; i++) {
		const image_watch *range = &state->watches.watches_val[i];
		struct uffdio_register watch = { .range = { range->start, range->end - range->start },
						 .mode = range->mode };
		control(plans, task, fd, UFFDIO_REGISTER, &watch, sizeof(watch));
	}
	for (u_int i = 0; i < state->protected.protected_len; i++) {
		const image_span *span = &state->protected.protected_val[i];
		struct uffdio_writeprotect protect = { .range = { span->start, span->end - span->start },
						       .mode = UFFDIO_WRITEPROTECT_MODE_WP };
		control(plans, task, fd, UFFDIO_WRITEPROTECT, &protect, sizeof(protect));
	}
	return fd;
}

const struct file_kind kind_userfaultfd = {
	.name = "userfaultfd",
	.keeps = "features, what is watched for what, missing and write-protected pages, of the memory of the one "
		 "process that holds it",
	.refuses = "one that several processes hold, or a message, that follows forks, or whose other end is outside "
		   "the tree",
	.shown_by = "memory_userfaultfd",
	.xdr = (xdrproc_t)xdr_image_file_userfaultfd,
	.own_flags = true,
	.matches = userfaultfd_matches,
	.save = userfaultfd_save,
	.save_links = userfaultfd_save_links,
	.make = userfaultfd_make,
	.is_late = userfaultfd_is_late,
	.arrive = userfaultfd_arrive,
};
