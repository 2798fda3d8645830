/*
 * agent_world.h - control memory, plans and processes for the tests of the agent.
 *
 * Maps the blob that is built in the way the engine does. For cmocka programs of one
 * file: everything is static, one world at a time.
 */
#ifndef TESTS_AGENT_WORLD_H
#define TESTS_AGENT_WORLD_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "parasite/plan.h"
#include "store/scope.h"

/* Where things lie in the control memory of these tests, from struct ctl. */
enum {
	N_TASKS = 8,
	N_OPS = 64,
	N_SLOTS = 32,
	TASKS_AT = 1024,
	OPS_AT = 4096,
	SLOTS_AT = 12288,
	DATA_AT = 16384,
	STACKS_AT = 20480,
	CTL_SIZE = STACKS_AT + N_TASKS * (int)AGENT_STACK,
};
#define PATIENCE_MS 20000 /* for what should happen at once, on a machine that may be busy */

/* --- control memory and plans ------------------------------------------- */

static struct ctl *ctl;
static uint32_t building; /* the task whose plan gets the operations being added */

static inline const struct agent_entries *entries(void)
{
	return (const struct agent_entries *)(uintptr_t)ctl->base;
}

static inline int set_up(void **state)
{
	(void)state;
	cleanup_fd int fd = memfd_create("agent", MFD_CLOEXEC);
	size_t size = AGENT_TEXT + CTL_SIZE;
	assert_return_code(ftruncate(fd, (off_t)size), errno);
	uint8_t *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(base, MAP_FAILED);
	memcpy(base, agent_blob, agent_blob_size);
	assert_return_code(mprotect(base, AGENT_TEXT, PROT_READ | PROT_EXEC), errno);
	ctl = (struct ctl *)(base + AGENT_TEXT);
	*ctl = (struct ctl){.magic = CTL_MAGIC, .base = (uintptr_t)base, .size = size,
			    .n_tasks = N_TASKS, .tasks = TASKS_AT, .n_ops = N_OPS, .ops = OPS_AT,
			    .n_slots = N_SLOTS, .slots = SLOTS_AT, .lent = {-1, -1, -1}};
	for (uint32_t i = 0; i < N_TASKS; i++)
		ctl_task(ctl, i)->stack = STACKS_AT + (i + 1) * AGENT_STACK;
	building = 0;
	return 0;
}

static inline pid_t any_child(void)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	cleanup_file FILE *children = fopen(path, "re");
	pid_t pid = 0;
	return children && fscanf(children, "%d", &pid) == 1 ? pid : 0;
}

/* Ends whatever still runs, also what plans have forked: main made this its subreaper. */
static inline int tear_down(void **state)
{
	(void)state;
	for (pid_t pid = any_child(); pid > 0; pid = any_child()) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return munmap((void *)(uintptr_t)ctl->base, ctl->size);
}

static inline char *data(uint32_t offset)
{
	return (char *)ctl + DATA_AT + offset;
}

struct arg {
	uint8_t kind;
	uint64_t value;
};
#define IMM(x) ((struct arg){ARG_IMMEDIATE, (uint64_t)(x)})
#define DATA(offset) ((struct arg){ARG_CTL, DATA_AT + (offset)})
#define SLOT(n) ((struct arg){ARG_SLOT, (n)})

/* The next operations are of `task`. Plans are added one after the other. */
static inline void plan_of(uint32_t task)
{
	const struct ctl_task *last = ctl_task(ctl, building);
	ctl_task(ctl, task)->first_op = last->first_op + last->n_ops;
	building = task;
}

static inline struct plan_op *add(uint8_t kind, uint32_t nr, const struct arg args[6])
{
	struct ctl_task *task = ctl_task(ctl, building);
	struct plan_op *op = ctl_op(ctl, task->first_op + task->n_ops++);
	*op = (struct plan_op){.kind = kind, .nr = nr};
	for (int i = 0; i < 6; i++) {
		op->arg_kind[i] = args[i].kind;
		op->arg[i] = args[i].value;
	}
	return op;
}
#define OP(kind, ...) add(kind, 0, (struct arg[6]){__VA_ARGS__})
#define CALL(nr, ...) add(PLAN_SYSCALL, nr, (struct arg[6]){__VA_ARGS__})
/* A call whose result goes to slot n. */
#define CALL_TO(n, nr, ...) (CALL(nr, __VA_ARGS__)->result = (n) + 1)

static inline long slot(uint32_t n)
{
	return *ctl_slot(ctl, n);
}

/* --- running ---------------------------------------------------------------- */

static inline pid_t spawn(uint32_t task)
{
	long (*agent_spawn)(struct ctl *, uint32_t, int, uint64_t) =
		(void *)(uintptr_t)(ctl->base + entries()->spawn);
	return (pid_t)agent_spawn(ctl, task, SIGCHLD, 0);
}

static inline bool reaches(const uint32_t *word, uint32_t value)
{
	for (int ms = 0; ms < PATIENCE_MS; ms++) {
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value)
			return true;
		usleep(1000);
	}
	return false;
}

static inline void assert_state(uint32_t task, uint32_t state)
{
	if (!reaches(&ctl_task(ctl, task)->state, state))
		fail_msg("task %u: expected state %u, seen %u (operation %u gave %ld)", task, state,
			 ctl_task(ctl, task)->state, ctl_task(ctl, task)->pc,
			 (long)ctl_task(ctl, task)->result);
}

static inline void run(uint32_t task, uint32_t final_state)
{
	assert_true(spawn(task) > 0);
	assert_state(task, final_state);
}

static inline void release(uint32_t value)
{
	__atomic_store_n(&ctl->release, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, &ctl->release, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static inline bool proc_has(const char *format, ...)
{
	char path[64];
	va_list args;
	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	return access(path, F_OK) == 0;
}

/* A PID that was just given back: the kernel hands it out again only after all others. */
static inline pid_t unused_pid(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return pid;
}

static inline void skip_unless_pids_can_be_chosen(void)
{
	if (geteuid() != 0) {
		print_message("skipped: choosing a PID (clone3 set_tid) needs root\n");
		skip();
	}
}

#endif
