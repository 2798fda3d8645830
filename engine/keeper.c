#include "engine/keeper.h"

#include <linux/futex.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/restore.h"
#include "engine/template.h"
#include "parasite/plan.h"
#include "store/scope.h"

#define SIZE (256ull << 20) /* of control memory: address space, of which plans use a little */
#define NAME "fsnap-template"
#define SPINS 2000
#define PATIENCE_MS 20

static struct ctl *ctl_of(const struct keeper *keeper)
{
	return (struct ctl *)((char *)keeper->control + AGENT_TEXT);
}

static struct keep *keep_of(const struct keeper *keeper)
{
	return (struct keep *)((char *)keeper->control + keeper->size - STORE_PAGE);
}

/* --- its memory --------------------------------------------------------------------------- */

static bool touches(const image_span *spans, u_int n, const image_vma *vma)
{
	for (u_int i = 0; i < n; i++)
		if (spans[i].start < vma->end && vma->start < spans[i].end)
			return true;
	return false;
}

/* A child has it as its parent does. */
static bool is_heritable(const struct model *model, const image_mm *mm, const image_vma *vma)
{
	const unsigned harmless = ADVICE_HUGEPAGE | ADVICE_NOHUGEPAGE | ADVICE_DONTDUMP | ADVICE_SEQUENTIAL |
				  ADVICE_RANDOM;
	return (vma->kind == VMA_ANON || (vma->kind == VMA_FILE && !model->mapped[vma->object - 1].identity.ghost)) &&
	       (vma->flags & MAP_TYPE) == MAP_PRIVATE && !vma->pkey && !(vma->advice & ~harmless) &&
	       !(vma->flags & ~(unsigned)(MAP_TYPE | MAP_GROWSDOWN | MAP_NORESERVE)) &&
	       !touches(mm->guards.guards_val, mm->guards.guards_len, vma);
}

/* The address space without what cannot be inherited; *number tells which mapping each was. */
static image_mm select_heritable(const struct model *model, const image_mm *mm, image_vma *vmas, u_int *number)
{
	image_mm part = *mm;
	u_int n = 0;
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind != VMA_SPECIAL && !is_heritable(model, mm, vma))
			continue;
		number[n] = i;
		vmas[n++] = *vma;
	}
	part.vmas.vmas_val = vmas;
	part.vmas.vmas_len = n;
	part.guards.guards_len = 0;
	part.aios.aios_len = 0;
	return part;
}

static int note_built(struct keeper *keeper, const image_mm *mm, const u_int *number, u_int n, struct fsnap_error *err)
{
	keeper->built = calloc(mm->vmas.vmas_len + 1, sizeof(*keeper->built));
	keeper->ranges = calloc(n + 1, sizeof(*keeper->ranges));
	if (!keeper->built || !keeper->ranges)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a template");
	for (u_int i = 0; i < n; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[number[i]];
		if (vma->kind == VMA_SPECIAL)
			continue;
		keeper->built[number[i]] = true;
		keeper->ranges[keeper->n_ranges++] = (struct memory_range){ vma->start, vma->end };
	}
	return 0;
}

/* Pages in those ranges. */
static size_t clip(struct page_run *list, const struct page_run *runs, size_t n, const struct memory_range *ranges,
		   size_t n_ranges)
{
	size_t count = 0;
	for (size_t i = 0, r = 0; i < n && r < n_ranges;) {
		uint64_t from = runs[i].page, to = from + runs[i].npages;
		uint64_t start = ranges[r].start / STORE_PAGE, end = ranges[r].end / STORE_PAGE;
		uint64_t low = from > start ? from : start, high = to < end ? to : end;
		if (low < high)
			list[count++] = (struct page_run){ .page = low, .at = runs[i].at + (low - from),
							   .npages = (uint32_t)(high - low), .space = runs[i].space };
		if (to <= end)
			i++;
		else
			r++;
	}
	return count;
}

static int build(struct keeper *keeper, struct restore *restore, uint32_t task, struct fsnap_error *err)
{
	const image_mm *mm = &restore->model.mms[0];
	const struct template_space *space = restore->options->from->spaces;
	u_int most = mm->vmas.vmas_len;
	size_t n_runs;
	const struct page_run *runs = image_runs(restore->image, mm->id, &n_runs);
	cleanup_free image_vma *vmas = calloc(most + 1, sizeof(*vmas));
	cleanup_free u_int *number = calloc(most + 1, sizeof(*number));
	cleanup_free bool *held = calloc(most + 1, sizeof(*held));
	cleanup_free uint64_t *from = calloc(most + 1, sizeof(*from));
	cleanup_free struct page_run *some = calloc(n_runs + most + 1, sizeof(*some));
	cleanup_free struct page_run *rest = calloc(2 * (n_runs + most) + 1, sizeof(*rest));
	if (!vmas || !number || !held || !from || !some || !rest)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a template");
	image_mm part = select_heritable(&restore->model, mm, vmas, number);
	if (note_built(keeper, mm, number, part.vmas.vmas_len, err) < 0)
		return -1;
	for (u_int i = 0; i < part.vmas.vmas_len; i++) {
		uint64_t at = space->at[number[i]];
		held[i] = at != 0;
		from[i] = at == vmas[i].start ? 0 : at;
	}
	size_t n = clip(some, runs, n_runs, keeper->ranges, keeper->n_ranges);
	struct memory_part what = { .inherited = held, .from = from, .runs = rest,
				    .leftover = restore->options->from->stash };
	what.n_runs = template_list_rest(rest, some, n, space->held, space->n_held);
	if (memory_specials(restore->plans, task, &restore->source, &part, err) < 0 ||
	    memory_build(restore->plans, task, &restore->source, &part, &what, err) < 0)
		return -1;
	/* It is not the program: who looks for that by its command line finds copies only, whose own it becomes. */
	part.arg_end = part.arg_start;
	part.env_end = part.env_start;
	memory_fields(restore->plans, task, &restore->source, &part);
	return 0;
}

/* --- making it -------------------------------------------------------------------------------- */

static bool is_possible(const struct restore *restore)
{
	const struct model *model = &restore->model;
	if (restore->foreign || !restore->options->from->n_spaces)
		return false;
	for (size_t i = 0; i < model->n_files; i++) /* rings are mapped through descriptors: control_memory.c */
		if (strcmp(model->files[i].kind, "io_uring") == 0)
			return false;
	return true;
}

static int write_plan(struct keeper *keeper, struct restore *restore, bool whole, struct fsnap_error *err)
{
	struct plans *plans = restore->plans = plans_new();
	uint32_t task = plans_task(plans, 0, "the process that holds a template");
	const struct rebuild r = { .plans = plans, .task = task, .self = &restore->self };
	plan_note(plans, "end with the caller");
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_PDEATHSIG), IMM(SIGKILL));
	plan_call(plans, task, SYS_getppid);
	plan_accept(plans, IMM(getpid()));
	rseq_forget(&r);
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_NAME), DATA(plans_data(plans, NAME, sizeof(NAME), 1)));
	template_offer(restore->options->from, NULL, &restore->source);
	restore->source.n_held += restore->options->from->n_areas;
	memory_clear(plans, task, &restore->source);
	if (whole && build(keeper, restore, task, err) < 0)
		return -1;
	plan_keep(plans, task, restore->source.control.start + keeper->size - STORE_PAGE);
	return 0;
}

static int lay_control(struct keeper *keeper, struct restore *restore, struct fsnap_error *err)
{
	void *base = (void *)restore->source.control.start;
	cleanup_fd int fd = memfd_create("fsnap-control", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)keeper->size) < 0 ||
	    mmap(base, keeper->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE, fd, 0) !=
		    base)
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
	keeper->control = base;
	memcpy(base, agent_blob, agent_blob_size);
	if (plans_write(restore->plans, ctl_of(keeper), (uint64_t)base, err) < 0)
		return -1;
	keep_of(keeper)->order = 1;
	ctl_task(ctl_of(keeper), 0)->stack = (uint32_t)(keeper->size - AGENT_TEXT - STORE_PAGE);
	return mprotect(base, AGENT_TEXT, PROT_READ | PROT_EXEC) < 0 ?
		       fail(err, FSNAP_E_SYSTEM, errno, "control memory") : 0;
}

/* Futex words are shared; it may die instead. */
static bool await(const struct keeper *keeper, uint32_t *word, uint32_t wanted)
{
	const struct timespec patience = { .tv_nsec = PATIENCE_MS * 1000000 };
	for (int spins = 0;; spins++) {
		siginfo_t ended = { 0 };
		uint32_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if (seen == wanted)
			return true;
		if (spins < SPINS) {
			__builtin_ia32_pause();
			continue;
		}
		syscall(SYS_futex, word, FUTEX_WAIT, seen, &patience, NULL, 0);
		if (waitid(P_PID, (id_t)keeper->pid, &ended, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 || ended.si_pid)
			return __atomic_load_n(word, __ATOMIC_ACQUIRE) == wanted;
	}
}

/* Nothing may interrupt it, ever; see spawn() in launch.c for the rest. Descriptors are shared. */
static int start(struct keeper *keeper, struct fsnap_error *err)
{
	const struct agent_entries *entries = keeper->control;
	int (*agent_spawn)(struct ctl *, uint32_t, int, uint64_t) =
		(int (*)(struct ctl *, uint32_t, int, uint64_t))((uintptr_t)keeper->control + entries->spawn);
	sigset_t all, was;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &was);
	sighandler_t file_size = signal(SIGXFSZ, SIG_DFL);
	keeper->pid = agent_spawn(ctl_of(keeper), 0, SIGCHLD, CLONE_FILES);
	signal(SIGXFSZ, file_size);
	sigprocmask(SIG_SETMASK, &was, NULL);
	if (keeper->pid < 0)
		return fail(err, FSNAP_E_SYSTEM, -keeper->pid, "a process that holds a template");
	return await(keeper, &keep_of(keeper)->answered, 1) ?
		       0 : fail(err, FSNAP_E_RESTORE_STEP, 0, "the process that holds a template ended");
}

static int make(struct keeper *keeper, struct restore *restore, struct fsnap_error *err)
{
	bool whole = restore->model.n_processes == 1 && restore->model.n_mms == 1;
	if (!is_possible(restore))
		return fail(err, FSNAP_E_UNSUPPORTED, 0, "not for this tree");
	if (workshop_open_mapped(restore, err) < 0 || inherited_collect(&restore->self, err) < 0 ||
	    control_reserve(restore, err) < 0 || write_plan(keeper, restore, whole, err) < 0 ||
	    lay_control(keeper, restore, err) < 0)
		return -1;
	/* What is parked beside control memory, and control memory itself, are as they will be for each copy. */
	keeper->source = restore->source;
	restore->source.specials = NULL;
	keeper->self = restore->self;
	restore->self = (struct inherited){ 0 };
	keeper->self.rseq = 0;
	free(keeper->self.thread.comm);
	keeper->self.thread.comm = strdup(NAME);
	keeper->parent = getpid();
	keeper->group = getpgrp();
	keeper->session = getsid(0);
	keeper->uid = geteuid();
	return keeper->self.thread.comm ? start(keeper, err) : fail(err, FSNAP_E_NOMEM, ENOMEM, "a template");
}

void keeper_make(struct restore *restore, struct keeper **out)
{
	struct fsnap_error why = { 0 };
	struct keeper *keeper = *out = calloc(1, sizeof(*keeper));
	if (!keeper)
		return;
	keeper->size = SIZE;
	if (make(keeper, restore, &why) == 0)
		return;
	keeper_end(keeper);
	*out = NULL;
}

void keeper_end(struct keeper *keeper)
{
	if (!keeper)
		return;
	if (keeper->pid > 0 && keeper->parent == getpid()) {
		kill(keeper->pid, SIGKILL);
		waitpid(keeper->pid, NULL, __WALL);
	}
	if (keeper->control)
		munmap(keeper->control, keeper->size);
	inherited_free(&keeper->self);
	free(keeper->source.specials);
	free(keeper->built);
	free(keeper->ranges);
	free(keeper);
}

/* --- copies ---------------------------------------------------------------------------------------- */

bool keeper_has_mapped(const struct keeper *keeper, const struct model *model, unsigned mapped)
{
	if (!keeper || !keeper->built)
		return false;
	const image_mm *mm = &model->mms[0];
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (mm->vmas.vmas_val[i].kind == VMA_FILE && mm->vmas.vmas_val[i].object == mapped && !keeper->built[i])
			return false;
	return true;
}

bool keeper_lives(const struct keeper *keeper)
{
	siginfo_t ended = { 0 };
	return waitid(P_PID, (id_t)keeper->pid, &ended, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && !ended.si_pid;
}

/* Files that it has mapped would be others now. */
static bool is_moved(const struct keeper *keeper, const struct restore *restore)
{
	for (size_t i = 0; keeper->built && i < restore->model.n_mapped; i++) {
		cleanup_free char *now = remap_path(&restore->remap, restore->model.mapped[i].identity.path, NULL);
		if (now)
			return true;
	}
	return false;
}

bool keeper_serves(struct keeper *keeper, const struct restore *restore)
{
	return keeper && !restore->explaining && restore->renumber.wanted && keeper->parent == getpid() &&
	       !restore->options->net_ns && !restore->options->ipc_ns && keeper->group == getpgrp() && keeper->session == getsid(0) &&
	       keeper->uid == geteuid() && !is_moved(keeper, restore) && keeper_lives(keeper);
}

int keeper_bear(struct keeper *keeper, uint32_t task)
{
	struct keep *keep = keep_of(keeper);
	keep->task = task;
	keep->result = -ESRCH;
	__atomic_store_n(&keep->order, keep->order + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &keep->order, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
	return await(keeper, &keep->answered, keep->order) ? (int)keep->result : -ESRCH;
}
