/*
 * test_agent.c - the agent, as it is built in, runs plans in processes made for that.
 *
 * Shown: what plans mean (values, acceptance, failure, copying, waiting, new tasks,
 * parking), that an order over the socket is answered, and that a process whose
 * engine dies comes home by its real signal frame, with nothing left behind.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
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

static const struct agent_entries *entries(void)
{
	return (const struct agent_entries *)(uintptr_t)ctl->base;
}

static int set_up(void **state)
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
			    .n_slots = N_SLOTS, .slots = SLOTS_AT, .socket = -1, .peer = -1};
	for (uint32_t i = 0; i < N_TASKS; i++)
		ctl_task(ctl, i)->stack = STACKS_AT + (i + 1) * AGENT_STACK;
	building = 0;
	return 0;
}

/* Ends whatever still runs, also what plans have forked: this program is its subreaper. */
static int tear_down(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < N_TASKS; i++)
		if (ctl_task(ctl, i)->state != TASK_NEW && ctl_task(ctl, i)->tid > 0)
			kill(ctl_task(ctl, i)->tid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return munmap((void *)(uintptr_t)ctl->base, ctl->size);
}

static char *data(uint32_t offset)
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
static void plan_of(uint32_t task)
{
	const struct ctl_task *last = ctl_task(ctl, building);
	ctl_task(ctl, task)->first_op = last->first_op + last->n_ops;
	building = task;
}

static struct plan_op *add(uint8_t kind, uint32_t nr, const struct arg args[6])
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

static long slot(uint32_t n)
{
	return *ctl_slot(ctl, n);
}

/* --- running ---------------------------------------------------------------- */

static pid_t spawn(uint32_t task)
{
	long (*agent_spawn)(struct ctl *, uint32_t, int) =
		(void *)(uintptr_t)(ctl->base + entries()->spawn);
	return (pid_t)agent_spawn(ctl, task, SIGCHLD);
}

static bool reaches(const uint32_t *word, uint32_t value)
{
	for (int ms = 0; ms < PATIENCE_MS; ms++) {
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value)
			return true;
		usleep(1000);
	}
	return false;
}

static void assert_state(uint32_t task, uint32_t state)
{
	if (!reaches(&ctl_task(ctl, task)->state, state))
		fail_msg("task %u: expected state %u, seen %u (operation %u gave %ld)", task, state,
			 ctl_task(ctl, task)->state, ctl_task(ctl, task)->pc,
			 (long)ctl_task(ctl, task)->result);
}

static void run(uint32_t task, uint32_t final_state)
{
	assert_true(spawn(task) > 0);
	assert_state(task, final_state);
}

static void release(uint32_t value)
{
	__atomic_store_n(&ctl->release, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, &ctl->release, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static bool proc_has(const char *format, ...)
{
	char path[64];
	va_list args;
	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	return access(path, F_OK) == 0;
}

/* A PID that was just given back: the kernel hands it out again only after all others. */
static pid_t unused_pid(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return pid;
}

static void skip_unless_pids_can_be_chosen(void)
{
	if (geteuid() != 0) {
		print_message("skipped: choosing a PID (clone3 set_tid) needs root\n");
		skip();
	}
}

/* --- what plans mean ---------------------------------------------------------- */

static void blob_opens_with_its_entries(void **state)
{
	(void)state;
	assert_int_equal(entries()->magic, AGENT_MAGIC);
	assert_in_range(agent_blob_size, sizeof(struct agent_entries), AGENT_TEXT);
	assert_in_range(entries()->start, sizeof(struct agent_entries), agent_blob_size - 1);
	assert_in_range(entries()->serve, sizeof(struct agent_entries), agent_blob_size - 1);
	assert_in_range(entries()->spawn, sizeof(struct agent_entries), agent_blob_size - 1);
}

static void values_go_from_operation_to_operation(void **state)
{
	(void)state;
	strcpy(data(0), "hello");
	CALL_TO(0, SYS_getpid);
	CALL_TO(1, SYS_memfd_create, DATA(0), IMM(0));
	CALL_TO(2, SYS_write, SLOT(1), DATA(0), IMM(5));
	CALL(SYS_pread64, SLOT(1), DATA(100), SLOT(2), IMM(0));
	CALL_TO(3, SYS_mmap, IMM(0), IMM(4096), IMM(PROT_READ), IMM(MAP_PRIVATE), SLOT(1), IMM(0));
	OP(PLAN_COPY, DATA(200), SLOT(3), IMM(5));
	pid_t pid = spawn(0);
	assert_state(0, TASK_PARKED);
	assert_int_equal(slot(0), pid);
	assert_int_equal(ctl_task(ctl, 0)->tid, pid);
	assert_int_equal(ctl_task(ctl, 0)->pc, 6);
	assert_string_equal(data(100), "hello");
	assert_string_equal(data(200), "hello");
	assert_int_equal(ctl->failed, 0);
}

static void copy_copies_exactly(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++)
		data(0)[i] = (char)(i * 7 + 1);
	OP(PLAN_COPY, DATA(2001), DATA(3), IMM(997));
	run(0, TASK_PARKED);
	assert_memory_equal(data(2001), data(3), 997);
	assert_int_equal(data(2000)[0], 0);
	assert_int_equal(data(2001)[997], 0);
}

static void acceptance_is_as_declared(void **state)
{
	(void)state;
	CALL(SYS_close, IMM(-1))->accept = ACCEPT_ANY;
	struct plan_op *op = CALL(SYS_close, IMM(-1));
	op->accept = ACCEPT_EQUAL;
	op->expected = -EBADF;
	CALL(SYS_getpid); /* ACCEPT_OK */
	op = CALL(SYS_getppid);
	op->accept = ACCEPT_EQUAL; /* with 0: success, but not what was expected */
	run(0, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, 0)->pc, 3);
	assert_int_equal(ctl_task(ctl, 0)->result, getpid());
}

static void failure_names_itself_and_ends_waiting(void **state)
{
	(void)state;
	OP(PLAN_WAIT, IMM(3), IMM(1));
	plan_of(1);
	CALL(SYS_getpid);
	CALL_TO(1, SYS_close, IMM(-1));
	CALL_TO(2, SYS_getpid);
	assert_true(spawn(0) > 0);
	assert_state(0, TASK_RUNNING);
	usleep(20000); /* likely asleep by now; right either way */
	run(1, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, 1)->pc, 1);
	assert_int_equal(ctl_task(ctl, 1)->result, -EBADF);
	assert_int_equal(slot(1), -EBADF);
	assert_int_equal(slot(2), 0);
	assert_state(0, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, 0)->result, -ECANCELED);
	assert_int_equal(ctl->failed, 2); /* the first, not the one it took along */
}

static void unknown_operation_fails(void **state)
{
	(void)state;
	OP(77);
	run(0, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, 0)->result, -ENOSYS);
}

static void forked_tasks_meet_at_barriers(void **state)
{
	(void)state;
	for (uint32_t i = 1; i <= 3; i++)
		OP(PLAN_FORK, IMM(i), IMM(SIGCHLD))->result = i + 1;
	OP(PLAN_POST, IMM(0), IMM(1));
	OP(PLAN_WAIT, IMM(1), IMM(6));
	OP(PLAN_COPY, DATA(64), DATA(0), IMM(3));
	for (uint32_t i = 1; i <= 3; i++) {
		plan_of(i);
		OP(PLAN_WAIT, IMM(0), IMM(1));
		OP(PLAN_COPY, DATA(i - 1), DATA(16), IMM(1));
		OP(PLAN_POST, IMM(1), IMM(2));
	}
	data(16)[0] = 'x';
	pid_t parent = spawn(0);
	assert_true(parent > 0);
	for (uint32_t i = 0; i <= 3; i++)
		assert_state(i, TASK_PARKED);
	assert_string_equal(data(64), "xxx");
	assert_true(reaches(&ctl->parked, 4));
	for (uint32_t i = 1; i <= 3; i++) {
		assert_int_equal(ctl_task(ctl, i)->tid, slot(i));
		assert_true(proc_has("/proc/%d/task/%d/children", parent, parent));
		assert_false(proc_has("/proc/%d/task/%ld", parent, slot(i)));
		assert_true(proc_has("/proc/%ld", slot(i)));
	}
}

static void fork_gets_the_pid_it_asks_for(void **state)
{
	(void)state;
	skip_unless_pids_can_be_chosen();
	OP(PLAN_FORK, IMM(1), IMM(SIGCHLD))->result = 1;
	plan_of(1);
	CALL_TO(1, SYS_getpid);
	CALL_TO(2, SYS_getppid);
	pid_t wanted = unused_pid();
	ctl_task(ctl, 1)->tid = wanted;
	pid_t parent = spawn(0);
	assert_true(parent > 0);
	assert_state(1, TASK_PARKED);
	assert_state(0, TASK_PARKED);
	assert_int_equal(slot(0), wanted);
	assert_int_equal(slot(1), wanted);
	assert_int_equal(slot(2), parent);
}

static void thread_shares_and_gets_its_tid(void **state)
{
	(void)state;
	skip_unless_pids_can_be_chosen();
	CALL_TO(0, SYS_getpid);
	OP(PLAN_THREAD, IMM(1))->result = 2;
	OP(PLAN_WAIT, IMM(0), IMM(1));
	CALL(SYS_write, SLOT(4), DATA(0), IMM(1)); /* a descriptor that the thread has opened */
	plan_of(1);
	CALL_TO(2, SYS_getpid);
	CALL_TO(3, SYS_gettid);
	CALL_TO(4, SYS_memfd_create, DATA(0), IMM(0));
	OP(PLAN_POST, IMM(0), IMM(1));
	pid_t wanted = unused_pid();
	ctl_task(ctl, 1)->tid = wanted;
	pid_t parent = spawn(0);
	assert_state(0, TASK_PARKED);
	assert_state(1, TASK_PARKED);
	assert_int_equal(slot(1), wanted);
	assert_int_equal(slot(2), parent);
	assert_int_equal(slot(3), wanted);
	assert_true(proc_has("/proc/%d/task/%d", parent, wanted));
}

static void spawn_gives_the_kernels_refusal(void **state)
{
	(void)state;
	skip_unless_pids_can_be_chosen();
	ctl_task(ctl, 0)->tid = getpid();
	assert_int_equal(spawn(0), -EEXIST);
	assert_int_equal(ctl_task(ctl, 0)->state, TASK_NEW);
}

static void parked_task_goes_on_at_its_release(void **state)
{
	(void)state;
	OP(PLAN_PARK, IMM(1));
	CALL_TO(0, SYS_getpid);
	OP(PLAN_PARK, IMM(3));
	CALL_TO(1, SYS_getpid);
	pid_t pid = spawn(0);
	assert_true(reaches(&ctl->parked, 1));
	assert_int_equal(ctl_task(ctl, 0)->state, TASK_PARKED);
	assert_int_equal(slot(0), 0);
	release(1);
	assert_true(reaches(&ctl->parked, 2));
	assert_int_equal(slot(0), pid);
	release(2);
	usleep(20000);
	assert_int_equal(ctl->parked, 2);
	assert_int_equal(slot(1), 0);
	release(3);
	assert_true(reaches(&ctl->parked, 3));
	assert_int_equal(slot(1), pid);
}
