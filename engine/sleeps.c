#include "engine/sleeps.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bpf/sleep.h"
#include "engine/chain/chain.h"
#include "engine/compile.h"
#include "engine/frame.h"
#include "engine/laps.h"
#include "engine/restarts.h"
#include "engine/time_left.h"
#include "engine/trace.h"
#include "store/scope.h"

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull

static bool is_interrupted(const struct user_regs_struct *regs)
{
	return (int64_t)regs->orig_rax >= 0 && (int64_t)regs->rax == -ERESTART_RESTARTBLOCK;
}

/* --- dump -------------------------------------------------------------------------- */

static bool is_relative_futex(const struct user_regs_struct *regs)
{
	return regs->orig_rax == SYS_futex && (regs->rsi & FUTEX_CMD_MASK) == FUTEX_WAIT;
}

/* poll(2) may wait for ever, and is then restarted the same way. */
static bool is_poll_with_limit(const struct user_regs_struct *regs)
{
	return regs->orig_rax == SYS_poll && (int)regs->rdx >= 0;
}

/* Calls that have not written down themselves what remains. */
static bool wants_block(const struct user_regs_struct *regs)
{
	return regs->orig_rax == SYS_restart_syscall || is_poll_with_limit(regs) || is_relative_futex(regs) ||
	       (regs->orig_rax == SYS_nanosleep && !regs->rsi) ||
	       (regs->orig_rax == SYS_clock_nanosleep && !regs->r10);
}

static struct user_regs_struct *image_regs(const image_thread *image)
{
	return (struct user_regs_struct *)image->regs.regs_val;
}

void sleeps_note(struct dump *dump, struct task *task)
{
	struct user_regs_struct *regs = image_regs(&task->image);
	time_left_note(dump, task);
	if (!is_interrupted(regs))
		return;
	frame_name_call(task, regs);
	task->wants_block = wants_block(regs);
	dump->sleepers |= task->wants_block;
}

/* What the block is about must be what the registers are about: by now the thread may be somewhere else. A
 * call that nobody could name is named by that. */
static void recognise(struct user_regs_struct *regs, const struct sleep_block *block)
{
	if (regs->orig_rax != SYS_restart_syscall)
		return;
	if (block->futex == regs->rdi && block->first == (uint32_t)regs->rdx &&
	    ((regs->rsi & FUTEX_CMD_MASK) == FUTEX_WAIT || (regs->rsi & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET))
		regs->orig_rax = SYS_futex;
	else if (block->fds == regs->rdi && block->first == (uint32_t)regs->rsi)
		regs->orig_rax = SYS_poll;
	else if (block->remainder == regs->r10 && block->clock == (int32_t)regs->rdi)
		regs->orig_rax = SYS_clock_nanosleep;
	else if (block->remainder == regs->rsi)
		regs->orig_rax = SYS_nanosleep;
}

/* What remained when the block was read. false: it is not about this call. */
static bool remaining(const struct user_regs_struct *regs, const struct sleep_block *block,
		      const struct sleep_told *told, int64_t *left)
{
	bool boot = block->clock == CLOCK_BOOTTIME;
	switch (regs->orig_rax) {
	case SYS_poll:
		*left = block->poll_end - told->monotonic;
		return block->fds == regs->rdi && is_poll_with_limit(regs);
	case SYS_futex:
		*left = block->futex_end - told->monotonic;
		return block->futex == regs->rdi && is_relative_futex(regs);
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
		*left = block->expires - (boot ? told->boottime : told->monotonic);
		return !block->remainder && (boot || block->clock == CLOCK_MONOTONIC);
	}
	return false;
}

static const struct sleep_block *find_block(const struct sleep_block *blocks, const struct sleep_told *told,
					    size_t hint, pid_t tid)
{
	/* Threads are told in the order in which /proc lists them. */
	if (hint < told->n && blocks[hint].tid == (uint32_t)tid)
		return &blocks[hint];
	for (size_t i = 0; i < told->n; i++)
		if (blocks[i].tid == (uint32_t)tid)
			return &blocks[i];
	return NULL;
}

static void ask_about(struct process *process, struct sleep_reader *reader, uint64_t frozen_at)
{
	struct sleep_told told;
	const struct sleep_block *blocks = sleep_blocks(reader, process->live, &told, NULL);
	int64_t since = (int64_t)(clock_ns(CLOCK_MONOTONIC) - frozen_at);
	for (size_t i = 0; blocks && i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		const struct sleep_block *block =
			task->wants_block ? find_block(blocks, &told, i, task->tid) : NULL;
		if (!block)
			continue;
		struct user_regs_struct *regs = image_regs(&task->image);
		recognise(regs, block);
		int64_t left;
		if (remaining(regs, block, &told, &left)) /* what was just over is over at once */
			task->image.sleep_left_ns = left + since > 0 ? (uint64_t)(left + since) : 1;
	}
}

void sleeps_ask(struct dump *dump, uint64_t frozen_at)
{
	struct sleep_reader *reader = dump->sleepers ? readers_sleep(dump) : NULL;
	for (size_t i = 0; reader && i < dump->tree.n_processes; i++) {
		struct process *process = dump->tree.processes[i];
		bool wanted = false;
		for (size_t j = 0; j < process->n_tasks && !process->image.zombie && !wanted; j++)
			wanted = process->tasks[j]->wants_block;
		if (wanted)
			ask_about(process, reader, frozen_at);
	}
	if (dump->sleepers && !reader)
		sleeps_unknown(dump);
	readers_leave_sleep(dump, reader);
	time_left_tell(dump, frozen_at);
}

void sleeps_unknown(struct dump *dump)
{
	dump_note(dump, "how long calls like poll(2) had still to wait cannot be found out here: they will "
		  "wait for the whole of it again");
}

/* --- restore ------------------------------------------------------------------------ */

int sleeps_prepare(struct restore *restore, struct fsnap_error *err)
{
	restore->sleep_data = calloc(plans_task_count(restore->plans) + 1, sizeof(uint32_t));
	if (!restore->sleep_data)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		for (u_int j = 0; j < process->threads.threads_len; j++) {
			uint64_t left = process->threads.threads_val[j].sleep_left_ns;
			struct timespec time = { (time_t)(left / NS_PER_S), (long)(left % NS_PER_S) };
			if (left)
				restore->sleep_data[restore->first_task[i] + j] =
					plans_data(restore->plans, &time, sizeof(time), 8);
		}
	}
	return 0;
}

/* The call's arguments, but that its time is what remained. false: there is nothing to begin. */
static bool arguments(const struct user_regs_struct *regs, uint64_t left, uint64_t at, uint64_t args[6])
{
	const uint64_t same[6] = { regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 };
	memcpy(args, same, sizeof(same));
	switch (regs->orig_rax) {
	case SYS_nanosleep: /* has written what remains */
		args[0] = regs->rsi ? regs->rsi : left ? at : regs->rdi;
		return true;
	case SYS_clock_nanosleep:
		args[2] = regs->r10 ? regs->r10 : left ? at : regs->rdx;
		return true;
	case SYS_poll:
		args[2] = left ? (left + NS_PER_MS - 1) / NS_PER_MS : regs->rdx;
		return true;
	case SYS_futex:
		args[3] = left ? at : regs->r10;
		return true;
	}
	return false;
}

int sleeps_begin(struct restore *restore, struct task *task, const image_process *process, u_int thread,
		 struct fsnap_error *err)
{
	const image_thread *image = &process->threads.threads_val[thread];
	uint32_t number = leader_task(restore, process) + thread;
	struct ctl *ctl = (struct ctl *)((char *)restore->control + AGENT_TEXT);
	uint64_t at = (uintptr_t)plans_data_at(restore->plans, ctl, restore->sleep_data[number]), args[6];
	uint64_t gadget = model_mm(&restore->model, process->mm)->syscall_gadget;
	int64_t result = -EINTR;
	time_left_shorten(task, model_mm(&restore->model, process->mm), image);
	if (!is_interrupted(&task->regs))
		return 0;
	if (arguments(&task->regs, image->sleep_left_ns, at, args) &&
	    trace_check(trace_call_interrupted(task, gadget, (long)task->regs.orig_rax, args, &result, err), task,
			err) < 0)
		return -1;
	if (result == -ERESTART_RESTARTBLOCK)
		return 0;
	/* What it waited for is there, or its time was over: it has ended. */
	task->regs.rax = (uint64_t)result;
	task->regs.orig_rax = (uint64_t)-1;
	return 0;
}
