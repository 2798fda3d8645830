/*
 * settings.c - what a thread has set with prctl(2) and personality(2) and can be asked back as one number.
 */
#include <linux/prctl.h>
#include <stddef.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

#include "engine/state/state.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

#ifndef PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211 /* Linux 6.4 */
#endif

#define UNKNOWN 0xffffffffu /* the kernel is too old, or the caller (PR_GET_IO_FLUSHER) may not ask, nor set */

/* How a setting is asked for, and set: where in the arguments its value stands. */
static const struct setting {
	const char *what;
	long nr;
	uint64_t ask[3];
	uint64_t set[3]; /* VALUE: the value */
	bool by_pointer; /* the answer goes to where ask[1] points */
	size_t at;	 /* in image_thread */
} settings[N_SETTINGS] = {
#define VALUE UINT64_MAX
	{ "personality", SYS_personality, { UNKNOWN }, { VALUE }, false, offsetof(image_thread, personality) },
	{ "time stamp counter", SYS_prctl, { PR_GET_TSC }, { PR_SET_TSC, VALUE }, true,
	  offsetof(image_thread, tsc) },
	{ "machine check policy", SYS_prctl, { PR_MCE_KILL_GET }, { PR_MCE_KILL, PR_MCE_KILL_SET, VALUE }, false,
	  offsetof(image_thread, mce_kill) },
	{ "I/O flusher", SYS_prctl, { PR_GET_IO_FLUSHER }, { PR_SET_IO_FLUSHER, VALUE }, false,
	  offsetof(image_thread, io_flusher) },
	{ "speculation (store bypass)", SYS_prctl, { PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS },
	  { PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, VALUE }, false,
	  offsetof(image_thread, speculation) },
	{ "speculation (indirect branch)", SYS_prctl, { PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH },
	  { PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, VALUE }, false,
	  offsetof(image_thread, speculation[1]) },
	{ "speculation (L1D flush)", SYS_prctl, { PR_GET_SPECULATION_CTRL, PR_SPEC_L1D_FLUSH },
	  { PR_SET_SPECULATION_CTRL, PR_SPEC_L1D_FLUSH, VALUE }, false,
	  offsetof(image_thread, speculation[2]) },
};

static unsigned *value_of(image_thread *image, const struct setting *setting)
{
	return (unsigned *)((char *)image + setting->at);
}

/* --- dump ------------------------------------------------------------------------- */

/* What would turn the agent's calls into signals, or its returns into faults. */
int settings_collect_task(struct task_survey *survey, struct fsnap_error *err)
{
	struct {
		uint64_t mode, selector, offset, length;
	} dispatch = { 0 };
	const struct task *task = survey->task;
	const struct process *process = task->process;
	if (ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, task->tid, sizeof(dispatch), &dispatch) == 0 &&
	    dispatch.mode) {
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): thread %d dispatches system calls itself "
		     "(PR_SET_SYSCALL_USER_DISPATCH)", process->pid, process->comm, task->tid);
		return error_hint(err, "programs that emulate another system, as wine does, cannot be saved meanwhile");
	}
	if (!survey->status.shadow_stack)
		return 0;
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): thread %d has a shadow stack", process->pid,
	     process->comm, task->tid);
	return error_hint(err, "start it with GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK");
}

void settings_ask_task(struct task_survey *task, struct plans *plans)
{
	plan_note(plans, "ask for settings");
	for (size_t i = 0; i < N_SETTINGS; i++) {
		const struct setting *setting = &settings[i];
		uint32_t data = setting->by_pointer ? plans_data(plans, NULL, sizeof(unsigned), 4) : 0;
		plan_call(plans, task->plan, setting->nr, IMM(setting->ask[0]),
			  setting->by_pointer ? DATA(data) : IMM(setting->ask[1]), IMM(setting->ask[2]));
		plan_accept_any(plans);
		task->asks.setting[i] = plan_result(plans);
		task->asks.setting_data[i] = data;
	}
}

void settings_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl)
{
	for (size_t i = 0; i < N_SETTINGS; i++) {
		int64_t result = plans_slot(plans, ctl, task->asks.setting[i]);
		unsigned value = settings[i].by_pointer ?
			*(unsigned *)plans_data_at(plans, ctl, task->asks.setting_data[i]) : (unsigned)result;
		*value_of(&task->task->image, &settings[i]) = result < 0 ? UNKNOWN : value;
	}
}

/* --- restore ------------------------------------------------------------------------ */

void settings_inherited(image_thread *self)
{
	for (size_t i = 0; i < N_SETTINGS; i++) {
		const struct setting *setting = &settings[i];
		unsigned value = 0;
		uint64_t second = setting->by_pointer ? (uintptr_t)&value : setting->ask[1];
		long result = syscall(setting->nr, setting->ask[0], second, setting->ask[2], 0, 0);
		*value_of(self, setting) = result < 0 ? UNKNOWN : setting->by_pointer ? value : (unsigned)result;
	}
}

/* Speculation is told as a choice and whether there was one. */
static bool is_settable(const struct setting *setting, unsigned *value)
{
	if (*value == UNKNOWN)
		return false;
	if (setting->set[0] != PR_SET_SPECULATION_CTRL || setting->nr != SYS_prctl)
		return true;
	bool choice = *value & PR_SPEC_PRCTL;
	*value &= ~(unsigned)PR_SPEC_PRCTL;
	return choice;
}

static struct arg argument(uint64_t given, unsigned value)
{
	return given == VALUE ? IMM(value) : IMM(given);
}

void settings_rebuild_task(const struct rebuild *r)
{
	image_thread to = *r->thread, from = r->self->thread;
	for (size_t i = 0; i < N_SETTINGS; i++) {
		const struct setting *setting = &settings[i];
		unsigned value = *value_of(&to, setting);
		unsigned own = *value_of(&from, setting);
		if (value == own || own == UNKNOWN || !is_settable(setting, &value))
			continue;
		plan_note(r->plans, "%s", setting->what);
		plan_call(r->plans, r->task, setting->nr, argument(setting->set[0], value),
			  argument(setting->set[1], value), argument(setting->set[2], value));
	}
}
