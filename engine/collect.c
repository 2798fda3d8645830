/*
 * collect.c - the state of a frozen tree, from outside and, through the agent,
 * from inside; process by process, the agents of many at once.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/early.h"
#include "engine/job_control.h"
#include "engine/leftover.h"
#include "engine/place.h"
#include "engine/procfs.h"
#include "engine/sleeps.h"
#include "engine/state/state.h"
#include "engine/trace.h"
#include "store/scope.h"

static int collect_registers(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	for (size_t i = 0; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (trace_check(trace_get_state(task, err), task, err) < 0)
			return -1;
		task->image.tid = task->tid;
		task->image.regs.regs_val = malloc(sizeof(task->regs));
		if (!task->image.regs.regs_val)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "registers");
		memcpy(task->image.regs.regs_val, &task->regs, sizeof(task->regs));
		task->image.regs.regs_len = sizeof(task->regs);
		if (trace_check(trace_get_mask(task, &task->image.sigmask, err), task, err) < 0)
			return -1;
		sleeps_note(dump, task);
		/* Bit 30 of a call's number: the x32 ABI. */
		bool x32 = (int64_t)task->regs.orig_rax >= 0 && (task->regs.orig_rax & 0x40000000);
		/* CS tells which instruction set the thread runs: 0x33 is 64-bit user code. */
		if (task->regs.cs != 0x33 || x32) {
			fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) is a 32-bit program%s", process->pid,
			     process->comm, x32 ? " (x32)" : "");
			return error_hint(err, "only 64-bit programs can be saved");
		}
	}
	return 0;
}

static bool same_directory(const struct process *process, const char *name, const image_identity *before)
{
	char path[4096];
	struct stat stat;
	ssize_t n = readlinkat(process->proc, name, path, sizeof(path));
	return n >= 0 && !before->ghost && !before->handle.handle_len && (size_t)n == strlen(before->path) &&
	       memcmp(path, before->path, (size_t)n) == 0 && fstatat(process->proc, name, &stat, 0) == 0 &&
	       stat.st_dev == before->dev && stat.st_ino == before->ino;
}

static int copy_identity(const image_identity *from, image_identity *to, struct fsnap_error *err)
{
	*to = *from;
	to->path = strdup(from->path);
	return to->path ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", from->path);
}

/* `before`: that of another process, which mostly has the same; or NULL. */
static int collect_cwd(struct dump *dump, struct process *process, const char *name,
		       const image_identity *before, image_identity *identity, struct fsnap_error *err)
{
	char path[4096];
	if (before && same_directory(process, name, before))
		return copy_identity(before, identity, err);
	cleanup_fd int fd = openat(process->proc, name, O_PATH | O_CLOEXEC);
	ssize_t n = readlinkat(process->proc, name, path, sizeof(path) - 1);
	if (fd < 0 || n < 0)
		return fail(err, errno == ENAMETOOLONG ? FSNAP_E_UNSUPPORTED : FSNAP_E_PERMISSION, errno,
			    "process %d (%s): its %s", process->pid, process->comm, name);
	path[n] = '\0';
	return dump_identity(dump, process, fd, path, identity, err);
}

/* Of a thread that has ended its name and owner are left. */
static int collect_ended(struct process *process, image_thread *image, struct fsnap_error *err)
{
	char name[32];
	struct task_status status;
	snprintf(name, sizeof(name), "task/%d/status", process->pid);
	cleanup_free char *text = procfs_read_once(process->proc, name, NULL, err);
	if (!text || status_parse(text, &status, err) < 0)
		return error_context(err, "process %d (%s)", process->pid, process->comm);
	*image = (image_thread){ .tid = process->pid, .comm = strdup(process->comm), .creds = status.creds };
	return image->comm ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", process->pid);
}

static int collect_zombie(struct process *process, struct fsnap_error *err)
{
	struct task *task = process_add_task(process, process->pid);
	if (!task)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", process->pid);
	return collect_ended(process, &task->image, err);
}

/* What a process is asked from inside, and what came of it. */
struct inquiry {
	struct survey *survey;
	uint32_t brk, undo; /* slots */
	uint32_t files;	/* the first of files_ask() */
	uint32_t rings;	/* the first of rings_ask() */
};

/* What the frames by which its threads find home are made of. */
static int collect_stopped(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	process->image.stopped = (u_int)process->tasks[0]->group_stop;
	if (process->image.leader_ended && collect_ended(process, &process->ended, err) < 0)
		return -1;
	process->mm.id = process->image.mm = ++dump->next_space;
	process->mm.syscall_gadget =
		process->text.syscall_ret ? process->text.syscall_ret : process->text.syscall_any;
	return collect_registers(dump, process, err);
}

static int collect_state(struct process *process, struct inquiry *inquiry, struct fsnap_error *err)
{
	inquiry->survey = survey_new(process, err);
	return inquiry->survey ? survey_collect(inquiry->survey, err) : -1;
}

static int collect_directories(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	const image_process *before = dump->before ? &dump->before->image : NULL;
	if (collect_cwd(dump, process, "cwd", before ? &before->cwd : NULL, &process->image.cwd, err) < 0 ||
	    collect_cwd(dump, process, "root", before ? &before->root : NULL, &process->image.root, err) < 0)
		return -1;
	dump->before = process;
	return 0;
}

static int collect_pages(struct placement *placement, struct fsnap_error *err)
{
	struct dump *dump = placement->arg;
	return dump->finder ? 0 : pages_find(dump, placement->process, err);
}

/* Facts that only the process itself can ask the kernel for. */
static struct plans *ask(struct dump *dump, struct process *process, struct inquiry *inquiry)
{
	struct plans *plans = plans_new();
	for (size_t i = 0; i < process->n_tasks; i++)
		inquiry->survey->task[i].plan = plans_task(plans, process->tasks[i]->tid, process->comm);
	survey_ask(inquiry->survey, plans);
	leftover_drop(process, plans);
	plan_note(plans, "end of the heap");
	plan_call(plans, 0, SYS_brk, IMM(0));
	inquiry->brk = plan_result(plans);
	inquiry->undo = ipc_ask(dump, plans, 0);
	jobs_ask(process, plans);
	inquiry->files = files_ask(process, plans);
	inquiry->rings = rings_ask(process, plans);
	return plans;
}

static int answer(struct dump *dump, const struct placement *placement, const struct inquiry *inquiry,
		  struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placement->placed);
	placement->process->mm.brk = (uint64_t)plans_slot(placement->plans, ctl, inquiry->brk);
	jobs_answer(placement->process, placement->plans, ctl);
	files_answer(placement->process, placement->plans, ctl, inquiry->files);
	rings_answer(placement->process, placement->plans, ctl, inquiry->rings);
	if (ipc_answer(dump, placement->process, placement->plans, ctl, inquiry->undo, err) < 0)
		return -1;
	return survey_answer(inquiry->survey, placement->plans, ctl, err);
}

static int ask_inside(struct dump *dump, struct placement *placements, struct inquiry *inquiries, size_t n,
		      struct fsnap_error *err)
{
	int result = place_run(placements, n, err);
	for (size_t i = 0; i < n && result == 0; i++)
		result = answer(dump, &placements[i], &inquiries[i], err);
	return result;
}

/* Its memory is listed before anything of ours is in it. */
static int collect_outside(struct dump *dump, struct process *process, struct inquiry *inquiry, struct fsnap_error *err)
{
	early_await(dump, process);
	if (maps_collect(dump, process, err) < 0 || leftover_refuse_used(process, err) < 0 ||
	    aio_collect(dump, process, err) < 0)
		return -1;
	finder_take(dump);
	return collect_state(process, inquiry, err) < 0 ? -1 : files_collect(dump, process, err);
}

static int set_off(struct dump *dump, struct placement *placement, struct inquiry *inquiry, struct fsnap_error *err)
{
	if (collect_outside(dump, placement->process, inquiry, err) < 0 || place_begin(placement, err) < 0)
		return -1;
	placement->plans = ask(dump, placement->process, inquiry);
	return 0;
}

/* While it makes the call, /proc says where it is. */
static int enter(struct dump *dump, struct placement *placement, struct fsnap_error *err)
{
	return place_enter(placement, err) < 0 ? -1 : collect_directories(dump, placement->process, err);
}

/* Three stages, a process in each: while one is on its way to the first system call for us, and the one before makes it,
 * the agents of those before run: nobody is waited for who has been told only just now. */
static int collect_all(struct dump *dump, struct placement *placements, struct inquiry *inquiries, size_t n,
		       struct fsnap_error *err)
{
	for (size_t i = 0; i < n + 2; i++) {
		if (i < n && set_off(dump, &placements[i], &inquiries[i], err) < 0)
			return -1;
		if (i >= 1 && i - 1 < n && enter(dump, &placements[i - 1], err) < 0)
			return -1;
		if (i >= 2 && place_send(&placements[i - 2], err) < 0)
			return -1;
	}
	return 0;
}

static int list_ipc(struct placement *placement, struct fsnap_error *err)
{
	return ipc_list(placement->arg, err);
}

static int collect_batch(struct dump *dump, struct process **processes, size_t n, bool last, struct fsnap_error *err)
{
	struct inquiry inquiries[PLACE_BATCH] = { 0 };
	struct placement placements[PLACE_BATCH] = { 0 };
	int result = 0;
	for (size_t i = 0; i < n && result == 0; i++) {
		placements[i] = (struct placement){ .process = processes[i], .leaving = collect_pages, .arg = dump,
						    .running = last && i + 1 == n ? list_ipc : NULL };
		result = collect_stopped(dump, processes[i], err);
	}
	if (result == 0)
		result = collect_all(dump, placements, inquiries, n, err);
	if (result == 0)
		result = ask_inside(dump, placements, inquiries, n, err);
	else
		place_give_up(placements, n);
	for (size_t i = 0; i < n; i++) {
		survey_free(inquiries[i].survey);
		plans_free(placements[i].plans);
		placed_retire(placements[i].placed, &dump->placed);
	}
	return result;
}

int collect(struct dump *dump, struct fsnap_error *err)
{
	struct tree *tree = &dump->tree;
	struct process *batch[PLACE_BATCH];
	size_t n = 0;
	early_go(dump);
	for (size_t i = 0; i < tree->n_processes; i++)
		if (!tree->processes[i]->image.zombie && maps_note_program(tree->processes[i], err) < 0)
			return -1;
	if (sharing_collect(dump, err) < 0 || kinship_collect(dump, err) < 0 || ipc_look(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < tree->n_processes; i++) {
		struct process *process = tree->processes[i];
		process->image.pid = process->pid;
		process->image.ppid = process->ppid;
		dump->report->processes++;
		dump->report->threads += (unsigned)process->n_tasks;
		look_doubtfully(process);
		if ((process->image.zombie ? collect_zombie(process, err) :
					     look_at_process(dump, process, err)) < 0)
			return -1;
		if (!process->image.zombie)
			batch[n++] = process;
		bool last = i + 1 == tree->n_processes;
		if ((n == PLACE_BATCH || last) && collect_batch(dump, batch, n, last, err) < 0)
			return -1;
		n %= PLACE_BATCH;
	}
	if (rings_link(dump, err) < 0 || files_finish(dump, err) < 0 || ipc_collect(dump, err) < 0 || finder_end(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < tree->n_processes; i++)
		if (userfaults_check(tree->processes[i], err) < 0 ||
		    rings_check(dump, tree->processes[i], err) < 0)
			return -1;
	mappings_settle(dump);
	return mapped_settle(dump, err) < 0 ? -1 : ghost_settle(dump, err);
}
