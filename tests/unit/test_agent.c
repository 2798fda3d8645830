/*
 * test_agent.c - the agent, as it is built in, runs plans in processes made for that.
 *
 * Shown: what plans mean: values, acceptance, failure, copying, waiting, new tasks with
 * the IDs they ask for, parking.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "tests/unit/agent_world.h"

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
		assert_true(proc_has("/proc/%ld", slot(i)));
		assert_false(proc_has("/proc/%d/task/%ld", parent, slot(i)));
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

/* Task 3 is nobody: each byte of its first `n` stretches is written once, whoever takes it. */
static void lay_shared_plan(uint32_t n)
{
	struct plan_stretches *stretches = (void *)data(512);
	plan_of(3);
	strcpy(data(0), "shared");
	stretches->n = n;
	for (uint32_t i = 0; i < n; i++) {
		stretches->first[i] = 2 * i;
		CALL(SYS_sched_yield);
		CALL(SYS_pwrite64, SLOT(0), DATA(0), IMM(6), IMM(6 * i));
	}
	stretches->first[n] = 2 * n;
}

static void shared_work_is_done_once_and_its_helpers_are_gone(void **state)
{
	(void)state;
	char seen[6 * 12 + 1] = "";
	CALL_TO(0, SYS_memfd_create, DATA(0), IMM(0));
	OP(PLAN_HELPER, IMM(1))->result = 2;
	OP(PLAN_HELPER, IMM(2))->result = 3;
	OP(PLAN_SHARE, IMM(3), DATA(512));
	OP(PLAN_JOIN, IMM(1));
	OP(PLAN_JOIN, IMM(2));
	OP(PLAN_JOIN, IMM(4)); /* who was never there need not be waited for */
	CALL(SYS_fstat, SLOT(0), DATA(1024));
	CALL(SYS_pread64, SLOT(0), DATA(2048), IMM(100), IMM(0))->result = 5;
	for (uint32_t helper = 1; helper <= 2; helper++) {
		plan_of(helper);
		OP(PLAN_SHARE, IMM(3), DATA(512));
		CALL(SYS_exit, IMM(0));
	}
	lay_shared_plan(12);
	pid_t pid = spawn(0);
	assert_state(0, TASK_PARKED);
	for (int i = 0; i < 12; i++)
		strcat(seen, "shared");
	assert_int_equal(slot(4), strlen(seen));
	assert_string_equal(data(2048), seen);
	assert_in_range(((struct plan_stretches *)data(512))->next, 12, 15);
	assert_int_equal(ctl_task(ctl, 3)->done, 24);
	for (uint32_t helper = 1; helper <= 2; helper++) {
		assert_int_equal(ctl_task(ctl, helper)->alive, 0);
		assert_int_not_equal(slot(helper), pid);
		/* The kernel clears the word when it is done with its memory, and then with the rest of it. */
		for (int ms = 0; proc_has("/proc/%d/task/%ld", pid, slot(helper)) && ms < PATIENCE_MS; ms++)
			usleep(1000);
		assert_false(proc_has("/proc/%d/task/%ld", pid, slot(helper)));
	}
}

static void step_of_shared_work_is_what_failed(void **state)
{
	(void)state;
	OP(PLAN_HELPER, IMM(1));
	OP(PLAN_SHARE, IMM(3), DATA(512));
	OP(PLAN_JOIN, IMM(1));
	plan_of(1);
	OP(PLAN_SHARE, IMM(3), DATA(512));
	CALL(SYS_exit, IMM(0));
	*ctl_slot(ctl, 0) = -1; /* no descriptor */
	lay_shared_plan(4);
	assert_true(spawn(0) > 0);
	assert_state(3, TASK_FAILED);
	assert_int_equal(ctl->failed, 4);
	assert_int_equal(ctl_task(ctl, 3)->pc % 2, 1);
	assert_int_equal(ctl_task(ctl, 3)->result, -EBADF);
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

/* Before Linux 5.16, and behind the filters of some containers, there is no futex_waitv. */
static void waiting_works_without_futex_waitv(void **state)
{
	(void)state;
	const struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex_waitv, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	memcpy(data(64), filter, sizeof(filter));
	struct sock_fprog program = {.len = 4, .filter = (void *)data(64)};
	memcpy(data(0), &program, sizeof(program));
	CALL(SYS_prctl, IMM(PR_SET_NO_NEW_PRIVS), IMM(1));
	CALL(SYS_prctl, IMM(PR_SET_SECCOMP), IMM(SECCOMP_MODE_FILTER), DATA(0));
	struct plan_op *refused = CALL(SYS_futex_waitv);
	refused->accept = ACCEPT_EQUAL;
	refused->expected = -EPERM;
	OP(PLAN_WAIT, IMM(0), IMM(1));
	OP(PLAN_PARK, IMM(1));
	OP(PLAN_WAIT, IMM(1), IMM(1)); /* never posted */
	plan_of(1);
	OP(PLAN_POST, IMM(0), IMM(1));
	plan_of(2);
	CALL(SYS_close, IMM(-1));
	assert_true(spawn(0) > 0);
	run(1, TASK_PARKED);
	assert_state(0, TASK_PARKED);
	assert_int_equal(ctl_task(ctl, 0)->pc, 4);
	release(1);
	assert_state(0, TASK_RUNNING);
	run(2, TASK_FAILED);
	assert_state(0, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, 0)->result, -ECANCELED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(blob_opens_with_its_entries),
		TEST(values_go_from_operation_to_operation),
		TEST(copy_copies_exactly),
		TEST(acceptance_is_as_declared),
		TEST(failure_names_itself_and_ends_waiting),
		TEST(unknown_operation_fails),
		TEST(forked_tasks_meet_at_barriers),
		TEST(fork_gets_the_pid_it_asks_for),
		TEST(thread_shares_and_gets_its_tid),
		TEST(shared_work_is_done_once_and_its_helpers_are_gone),
		TEST(step_of_shared_work_is_what_failed),
		TEST(spawn_gives_the_kernels_refusal),
		TEST(parked_task_goes_on_at_its_release),
		TEST(waiting_works_without_futex_waitv),
	};
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
