/*
 * arm.c - a userfaultfd of the target's memory, and the mappings that are registered with it.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/vmas_shape.h"
#include "engine/dump.h"
#include "engine/laps.h"
#include "engine/place.h"
#include "engine/procfs.h"
#include "engine/seize.h"
#include "engine/trace.h"
#include "engine/track/track.h"
#include "store/scope.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* PAGEMAP_SCAN only speaks of ranges whose userfaultfd marks pages that are not there, too
 * (userfaultfd_wp_use_markers(), include/linux/userfaultfd_k.h). */
#define FEATURES (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC)

#define STEP (16ull << 20)
#define WORTH_IT (64u << 10) /* smaller mappings are copied sooner than asked for one by one */
#define ASIDE_MOST (2u << 20)

/* --- may it be tracked? ----------------------------------------------------------------- */

static bool may_suspend_seccomp(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };
	return syscall(SYS_capget, &head, data) == 0 && data[0].effective & 1u << CAP_SYS_ADMIN;
}

/* Of a stopped one: a filter that is not suspended (trace_seize()) might answer userfaultfd(2) with death. */
static int check_threads(const struct process *process, struct fsnap_error *err)
{
	bool suspended = may_suspend_seccomp();
	for (size_t i = 0; i < process->n_tasks; i++) {
		char name[40];
		struct task *task = process->tasks[i];
		snprintf(name, sizeof(name), "task/%d/status", task->tid);
		cleanup_free char *status = suspended ? NULL : procfs_read_once(process->proc, name, NULL, err);
		if (!suspended && (!status || procfs_status_number(status, "Seccomp") > 0))
			return track_refused(process, "has a seccomp filter", err);
		uint64_t mask;
		if (trace_check(trace_get_state(task, err), task, err) < 0 ||
		    trace_check(trace_get_mask(task, &mask, err), task, err) < 0)
			return -1;
		task->image.sigmask = mask;
		if (task->regs.cs != 0x33)
			return track_refused(process, "is a 32-bit program", err);
	}
	return 0;
}

/* execve(2) may have come between the look and the stop: what was to run there now leads anywhere. */
static int check_program(struct process *process, struct fsnap_error *err)
{
	look_doubtfully(process);
	if (process->prepared)
		return 0;
	return fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) has executed another program", process->pid,
		    process->comm);
}

/* --- made inside -------------------------------------------------------------------------- */

struct maker {
	struct track *track;
	uint32_t fd; /* slot */
};

static int take_descriptor(struct placement *placement, struct fsnap_error *err)
{
	const struct maker *maker = placement->arg;
	const struct process *process = placement->process;
	int64_t fd = plans_slot(placement->plans, placed_ctl(placement->placed), maker->fd);
	if (fd == -ENOSYS || fd == -EPERM)
		return fail(err, FSNAP_E_KERNEL_LACKS, (int)-fd, "userfaultfd");
	maker->track->uffd = fd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process->pidfd, fd, 0);
	if (maker->track->uffd < 0)
		return fail(err, FSNAP_E_SYSTEM, fd < 0 ? (int)-fd : errno, "process %d (%s): userfaultfd",
			    process->pid, process->comm);
	return 0;
}

/* It closes its descriptor whatever becomes of us. UFFD_USER_MODE_ONLY takes no privilege, and does not matter
 * to what is resolved without anybody being asked. */
static int make_inside(struct track *track, struct process *process, struct fsnap_error *err)
{
	struct plans *plans = plans_new();
	struct maker maker = { .track = track };
	plans_task(plans, process->tasks[0]->tid, process->comm);
	plan_note(plans, "a userfaultfd for who asks what is written");
	plan_call(plans, 0, SYS_userfaultfd, IMM(O_CLOEXEC | UFFD_USER_MODE_ONLY));
	plan_accept_any(plans);
	maker.fd = plan_result(plans);
	plan_post(plans, 0, PLACE_READY, 1);
	plan_wait(plans, 0, PLACE_DONE, 1);
	plan_accept_any(plans);
	plan_call(plans, 0, SYS_close, SLOT(maker.fd));
	plan_accept_any(plans);
	struct placement placement = { .process = process, .plans = plans, .alone = true, .meanwhile = take_descriptor,
				       .arg = &maker };
	int result = place_run(&placement, 1, err);
	placed_free(placement.placed);
	plans_free(plans);
	return result;
}

static int negotiate(struct track *track, struct fsnap_error *err)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };
	if (ioctl(track->uffd, UFFDIO_API, &api) == 0)
		return 0;
	fail(err, FSNAP_E_KERNEL_LACKS, errno == EINVAL ? 0 : errno,
	     "this kernel cannot tell which memory has been written");
	return error_hint(err, "Linux 6.7 or newer can");
}

static bool is_forbidden(void)
{
	return getenv("FSNAP_NO_PAGEMAP_SCAN") || getenv("FSNAP_NO_TRACKING");
}

int track_open(struct track *track, struct process *process, struct fsnap_error *err)
{
	*track = TRACK_NONE;
	if (is_forbidden())
		return fail(err, FSNAP_E_KERNEL_LACKS, 0, "memory is not to be tracked");
	if (track_refuse(process, err) < 0)
		return -1;
	track->pagemap = openat(process->proc, "pagemap", O_RDONLY | O_CLOEXEC);
	if (track->pagemap < 0)
		return fail(err, procfs_code(errno), errno, "process %d (%s): pagemap", process->pid, process->comm);
	uint64_t mark = clock_ns(CLOCK_MONOTONIC);
	int result = seize_alone(process, err);
	if (result == 0) {
		result = check_program(process, err) < 0 || check_threads(process, err) < 0 ?
				 -1 : make_inside(track, process, err);
		seize_let_go(process);
		track->stopped_us = lap(&mark);
	}
	if (result == 0 && negotiate(track, err) == 0)
		return 0;
	track_close(track);
	return -1;
}

int track_adopt(struct track *track, int uffd, int pagemap)
{
	*track = TRACK_NONE;
	track->uffd = uffd;
	track->pagemap = pagemap;
	return 0;
}

/* --- registering ------------------------------------------------------------------------------ */

static bool may_be_tracked(const struct process *process, const image_vma *vma)
{
	const unsigned others = MARK_WATCHED_MISSING | MARK_WATCHED_MINOR | MARK_WATCHED_WRITES | MARK_SHADOW_STACK |
				MARK_DROPPABLE | MARK_DEVICE;
	if (vma->flags & (MAP_SHARED | MAP_HUGETLB))
		return false;
	const struct advice *advice = maps_known_advice(process, vma->start);
	return !advice || !(advice->marks & others);
}

static bool is_worth_it(const struct process *process, const image_vma *vma)
{
	return vma->kind == VMA_ANON && vma->end - vma->start >= WORTH_IT && may_be_tracked(process, vma);
}

static int add_span(image_span **spans, size_t *n, const image_vma *vma, struct fsnap_error *err)
{
	image_span *more = grow(*spans, *n, sizeof(*more), err);
	if (!more)
		return -1;
	*spans = more;
	more[(*n)++] = (image_span){ vma->start, vma->end };
	return 0;
}

/* Those that overlap become one. */
static void join_spans(image_span *spans, size_t *n)
{
	size_t kept = 0;
	if (*n == 0)
		return;
	track_sort(&(struct track_spans){ spans, *n });
	for (size_t i = 1; i < *n; i++) {
		if (spans[i].start > spans[kept].end)
			spans[++kept] = spans[i];
		else if (spans[i].end > spans[kept].end)
			spans[kept].end = spans[i].end;
	}
	*n = kept + 1;
}

static bool overlaps(const image_span *spans, size_t n, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < n; i++)
		if (spans[i].start < end && start < spans[i].end)
			return true;
	return false;
}

bool track_is_aside(const struct track *track, uint64_t start, uint64_t end)
{
	return overlaps(track->aside, track->n_aside, start, end) && !overlaps(track->spans, track->n_spans, start, end);
}

bool track_has(const struct track *track, uint64_t start, uint64_t end)
{
	return overlaps(track->spans, track->n_spans, start, end) || overlaps(track->aside, track->n_aside, start, end);
}

static int take_mark_away(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	const struct track *track = arg;
	struct uffdio_writeprotect range = { { start, end - start }, 0 };
	if (ioctl(track->uffd, UFFDIO_WRITEPROTECT, &range) < 0 && errno != ENOENT && errno != ESRCH)
		return fail(err, FSNAP_E_SYSTEM, errno, "UFFDIO_WRITEPROTECT");
	return 0;
}

/* Kernels before 6.13 let pages keep their marks when mremap(2) moves them: those of an earlier life say
 * nothing about this one. */
static int wash(struct track *track, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	return track_unmarked(track, start, end, take_mark_away, track, err) < 0 ? -1 : 0;
}

int track_wash(struct track *track, struct fsnap_error *err)
{
	for (size_t i = 0; i < track->n_spans; i++)
		if (wash(track, track->spans[i].start, track->spans[i].end, err) < 0)
			return -1;
	return 0;
}

/* Somebody else's, or one that has vanished, cannot be. */
static bool is_registered(struct track *track, const image_vma *vma)
{
	struct uffdio_register range = { { vma->start, vma->end - vma->start }, UFFDIO_REGISTER_MODE_WP, 0 };
	return track_watches(track, vma->start) ||
	       (ioctl(track->uffd, UFFDIO_REGISTER, &range) == 0 && wash(track, vma->start, vma->end, NULL) == 0);
}

int track_register(struct track *track, const struct process *process, struct fsnap_error *err)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (is_worth_it(process, vma) && is_registered(track, vma) &&
		    add_span(&track->spans, &track->n_spans, vma, err) < 0)
			return -1;
	}
	join_spans(track->spans, &track->n_spans);
	return 0;
}

/* What is registered is mapped page by page when it is read, and not several at a fault (do_fault_around(), mm/memory.c):
 * nothing large of files, and nothing that is only read. */
static bool is_worth_it_aside(const struct process *process, const image_vma *vma, const struct vmas_range *bare, size_t n)
{
	if (!vma->prot || vma->end - vma->start > ASIDE_MOST || (vma->kind != VMA_FILE && vma->kind != VMA_ANON) ||
	    is_worth_it(process, vma) || !may_be_tracked(process, vma))
		return false;
	for (size_t i = 0; i < n; i++)
		if (bare[i].start <= vma->start && vma->end <= bare[i].end)
			return false;
	return true;
}

int track_register_aside(struct track *track, const struct process *process, const struct vmas_range *bare, size_t n,
			 struct fsnap_error *err)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (is_worth_it_aside(process, vma, bare, n) && is_registered(track, vma) &&
		    add_span(&track->aside, &track->n_aside, vma, err) < 0)
			return -1;
	}
	join_spans(track->aside, &track->n_aside);
	return 0;
}

/* The kernel goes through all page tables to take its marks away, with the address space locked for writing
 * (userfaultfd_release_all()): in steps, a fault waits for half a millisecond at most. */
static void unregister(const struct track *track)
{
	for (size_t i = 0; i < track->n_spans; i++)
		for (uint64_t at = track->spans[i].start, end = track->spans[i].end, size; at < end; at += size) {
			size = end - at < STEP ? end - at : STEP;
			struct uffdio_range range = { at, size };
			if (ioctl(track->uffd, UFFDIO_UNREGISTER, &range) < 0 && errno == ENOMEM)
				return; /* that memory is gone */
		}
}

void track_close(struct track *track)
{
	if (track->uffd >= 0)
		unregister(track);
	track_leave(track);
}

void track_leave(struct track *track)
{
	if (track->uffd >= 0)
		close(track->uffd);
	if (track->pagemap >= 0)
		close(track->pagemap);
	free(track->spans);
	free(track->aside);
	*track = TRACK_NONE;
}
