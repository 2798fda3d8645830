/*
 * state_world.h - children whose state is surveyed, for the tests of engine/state/.
 *
 * A child runs the plans itself, with a loop that does what the agent does for system calls.
 * For cmocka programs of one file: everything is static, one survey at a time.
 */
#ifndef TESTS_STATE_WORLD_H
#define TESTS_STATE_WORLD_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/procfs.h"
#include "engine/state/state.h"
#include "engine/trace.h"
#include "store/scope.h"

#include <cmocka.h> /* last: its fail() is a macro */

#define CTL_SIZE (1u << 20)

static struct ctl *ctl; /* shared with every child */

#define SAY(condition)                                                                   \
	do {                                                                             \
		if (!(condition)) {                                                      \
			dprintf(2, "child: %s: %s\n", #condition, strerror(errno));      \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

/* --- the agent's part, in a child ----------------------------------------------------- */

static inline long raw(long nr, const uint64_t a[6])
{
	register uint64_t r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static inline bool accepted(const struct plan_op *op, long result)
{
	if (op->accept == ACCEPT_EQUAL)
		return result == op->expected;
	return op->accept == ACCEPT_ANY || result >= 0 || result < -4095;
}

static inline void interpret(uint32_t number)
{
	struct ctl_task *task = ctl_task(ctl, number);
	for (task->pc = 0; task->pc < task->n_ops; task->pc++) {
		const struct plan_op *op = ctl_op(ctl, task->first_op + task->pc);
		uint64_t a[6];
		for (int i = 0; i < 6; i++)
			a[i] = op->arg_kind[i] == ARG_CTL  ? (uintptr_t)ctl + op->arg[i] :
			       op->arg_kind[i] == ARG_SLOT ? (uint64_t)*ctl_slot(ctl, (uint32_t)op->arg[i]) :
							     op->arg[i];
		task->result = raw(op->nr, a);
		if (op->result)
			*ctl_slot(ctl, op->result - 1) = task->result;
		if (!accepted(op, task->result)) {
			task->state = TASK_FAILED;
			ctl->failed = number + 1;
			return;
		}
	}
	task->state = TASK_PARKED;
}

/* A child waits at two points: with its state set, and with the plan of the survey run. */
struct child {
	pid_t pid;
	int go[2], done[2];
};

static inline void tell(const struct child *child)
{
	SAY(write(child->done[1], "", 1) == 1);
}

static inline void await_go(const struct child *child)
{
	char byte;
	while (read(child->go[0], &byte, 1) != 1)
		;
}

static inline void start(struct child *child, void (*prepare)(void))
{
	assert_return_code(pipe2(child->go, O_CLOEXEC), errno);
	assert_return_code(pipe2(child->done, O_CLOEXEC), errno);
	child->pid = fork();
	assert_return_code(child->pid, errno);
	if (child->pid == 0) {
		prepare();
		tell(child);
		await_go(child);
		interpret(0);
		tell(child);
		for (;;)
			pause();
	}
	char byte;
	close(child->done[1]);
	if (read(child->done[0], &byte, 1) != 1)
		fail_msg("the child did not get ready");
}

static inline void finish(struct child *child)
{
	kill(child->pid, SIGKILL);
	waitpid(child->pid, NULL, 0);
	close(child->go[0]);
	close(child->go[1]);
	close(child->done[0]);
}

/* --- the survey ------------------------------------------------------------------------- */

struct surveyed {
	struct process process;
	struct task task, *tasks[1];
};

#define CHECK(call)                                                     \
	do {                                                            \
		if ((call) != 0)                                        \
			fail_msg("%s: %s", #call, err.message);         \
	} while (0)

static inline void check_plan(const struct plans *plans)
{
	struct fsnap_error err = { .code = FSNAP_E_OK };
	if (!ctl->failed)
		return;
	plans_failure(plans, ctl, FSNAP_E_RESTORE_STEP, &err);
	fail_msg("%s", err.message);
}

static inline void write_plans(struct plans *plans)
{
	struct fsnap_error err = { .code = FSNAP_E_OK };
	assert_true(plans_size(plans) <= CTL_SIZE);
	memset(ctl, 0, CTL_SIZE);
	CHECK(plans_write(plans, ctl, (uintptr_t)ctl - AGENT_TEXT, &err));
}

static inline void look_at(struct child *child, struct surveyed *s)
{
	struct fsnap_error err = { .code = FSNAP_E_OK };
	*s = (struct surveyed){ .process = { .pid = child->pid, .n_tasks = 1 } };
	s->task = (struct task){ .tid = child->pid, .process = &s->process };
	s->tasks[0] = &s->task;
	s->process.tasks = s->tasks;
	s->process.proc = procfs_open(child->pid, &err);
	CHECK(trace_seize(&s->task, false, &err));
	CHECK(trace_interrupt(&s->task));
	CHECK(trace_await_stop(&s->task, &err));

	struct plans *plans = plans_new();
	struct survey *survey = survey_new(&s->process, &err);
	CHECK(survey_collect(survey, &err));
	survey->task[0].plan = plans_task(plans, child->pid, "the child");
	survey_ask(survey, plans);
	write_plans(plans);
	trace_detach(&s->task);

	char byte;
	assert_int_equal(write(child->go[1], "", 1), 1);
	assert_int_equal(read(child->done[0], &byte, 1), 1);
	check_plan(plans);
	CHECK(survey_answer(survey, plans, ctl, &err));
	survey_free(survey);
	plans_free(plans);
	close(s->process.proc);
}

static inline void forget(struct surveyed *s)
{
	xdr_free((xdrproc_t)xdr_image_thread, (char *)&s->task.image);
	free(s->process.image.limits.limits_val);
	free(s->process.image.timers.timers_val);
	free(s->process.image.actions.actions_val);
	free(s->process.image.pending.pending_val);
}

static inline int map_ctl(void)
{
	ctl = mmap(NULL, CTL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return ctl == MAP_FAILED ? -1 : 0;
}

#endif
