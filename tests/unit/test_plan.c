/*
 * test_plan.c - plans as they are built, laid out, printed and blamed.
 *
 * Shown: what plans_write() puts into control memory is what parasite/plan.h promises, and
 * works when a trivial interpreter runs it; the listing and the errors are what people need.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "restorer/plan.h"
#include "store/scope.h"

#include <cmocka.h> /* last: its fail() is a macro */

static struct plans *plans;
static struct ctl *ctl;

static int set_up(void **state)
{
	(void)state;
	plans = plans_new();
	ctl = NULL;
	return plans ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	if (ctl)
		munmap(ctl, plans_size(plans));
	plans_free(plans);
	return 0;
}

static void write_plans(void)
{
	struct fsnap_error err = { .code = FSNAP_E_OK };
	ctl = mmap(NULL, plans_size(plans), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(ctl, MAP_FAILED);
	if (plans_write(plans, ctl, (uint64_t)(uintptr_t)ctl - AGENT_TEXT, &err) != 0)
		fail_msg("plans_write: %s", err.message);
}

/* What the agent does for PLAN_SYSCALL, in this process. Stops like it at the first failure. */
static void interpret(uint32_t task)
{
	struct ctl_task *at = ctl_task(ctl, task);
	for (at->pc = 0; at->pc < at->n_ops; at->pc++) {
		struct plan_op *op = ctl_op(ctl, at->first_op + at->pc);
		long arg[6];
		for (int i = 0; i < 6; i++) {
			arg[i] = (long)op->arg[i];
			if (op->arg_kind[i] == ARG_CTL)
				arg[i] += (long)ctl;
			if (op->arg_kind[i] == ARG_SLOT)
				arg[i] = *ctl_slot(ctl, (uint32_t)op->arg[i]);
		}
		at->result = syscall(op->nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
		if (at->result < 0)
			at->result = -errno;
		if (op->result)
			*ctl_slot(ctl, op->result - 1) = at->result;
		if ((op->accept == ACCEPT_OK && at->result < 0) ||
		    (op->accept == ACCEPT_EQUAL && at->result != op->expected)) {
			at->state = TASK_FAILED;
			ctl->failed = task + 1;
			return;
		}
	}
}

static void layout_keeps_the_contract(void **state)
{
	(void)state;
	uint32_t a = plans_task(plans, 11, "process 11 (a)");
	uint32_t b = plans_task(plans, 0, "process 12 (b)");
	assert_int_equal(plans_task_count(plans), 2);
	uint32_t byte = plans_data(plans, "x", 1, 1);
	uint32_t page = plans_data(plans, NULL, 100, 4096);
	uint32_t word = plans_data(plans, &(uint64_t){ 42 }, 8, 8);
	plan_call(plans, b, SYS_read, IMM(3), DATA(page), IMM(100));
	plan_call(plans, a, SYS_getpid);
	plan_note(plans, "note %d", 1);
	plan_fork(plans, a, b, 17);
	plan_call(plans, b, SYS_write, IMM(1), DATA(word), IMM(8));
	write_plans();

	assert_int_equal(ctl->magic, CTL_MAGIC);
	assert_int_equal(ctl->base, (uintptr_t)ctl - AGENT_TEXT);
	assert_int_equal(ctl->size, AGENT_TEXT + plans_size(plans));
	assert_int_equal(plans_size(plans) % 4096, 0);
	assert_int_equal(ctl->n_tasks, 2);
	assert_int_equal(ctl->n_ops, 4);
	assert_int_equal(ctl_task(ctl, a)->tid, 11);
	assert_int_equal(ctl_task(ctl, b)->tid, 0);
	assert_int_equal(ctl_task(ctl, a)->n_ops, 2);
	assert_int_equal(ctl_task(ctl, b)->first_op, 2);
	for (uint32_t task = a; task <= b; task++) {
		assert_int_equal(ctl_task(ctl, task)->stack % 16, 0);
		assert_in_range(ctl_task(ctl, task)->stack, AGENT_STACK, plans_size(plans));
	}
	assert_int_equal(*(char *)plans_data_at(plans, ctl, byte), 'x');
	assert_int_equal((uintptr_t)plans_data_at(plans, ctl, page) % 4096, 0);
	assert_int_equal((uintptr_t)plans_data_at(plans, ctl, word) % 8, 0);
	assert_int_equal(*(uint64_t *)plans_data_at(plans, ctl, word), 42);

	struct plan_op *op = ctl_op(ctl, ctl_task(ctl, b)->first_op);
	assert_int_equal(op->kind, PLAN_SYSCALL);
	assert_int_equal(op->nr, SYS_read);
	assert_int_equal(op->arg_kind[1], ARG_CTL);
	assert_ptr_equal((char *)ctl + op->arg[1], plans_data_at(plans, ctl, page));
	assert_int_equal(op->note, 0);
	assert_string_equal((char *)ctl + op[1].note, "note 1");
	op = ctl_op(ctl, ctl_task(ctl, a)->first_op + 1);
	assert_int_equal(op->kind, PLAN_FORK);
	assert_int_equal(op->arg[0], b);
	assert_int_equal(op->arg[1], 17);
}

static void slots_carry_results(void **state)
{
	(void)state;
	uint32_t task = plans_task(plans, 0, "this process");
	char hello[6] = "";
	plan_call(plans, task, SYS_getuid); /* a result nobody keeps takes no slot */
	plan_call(plans, task, SYS_memfd_create, DATA(plans_data(plans, "m", 2, 1)), IMM(0));
	uint32_t fd = plan_result(plans);
	assert_int_equal(plan_result(plans), fd);
	plan_call(plans, task, SYS_write, SLOT(fd), DATA(plans_data(plans, "hello", 6, 1)), IMM(6));
	plan_accept_equal(plans, 6);
	uint32_t wrote = plan_result(plans);
	plan_call(plans, task, SYS_close, IMM(-1));
	plan_accept_any(plans);
	write_plans();
	assert_int_equal(ctl->n_slots, 2);
	interpret(task);
	assert_int_equal(ctl->failed, 0);
	assert_int_equal(plans_slot(plans, ctl, wrote), 6);
	int made = (int)plans_slot(plans, ctl, fd);
	assert_int_equal(pread(made, hello, 6, 0), 6);
	assert_string_equal(hello, "hello");
	close(made);
}

static void failure_names_task_step_call_and_cause(void **state)
{
	(void)state;
	plans_task(plans, 1, "process 1 (other)");
	uint32_t task = plans_task(plans, 12, "process 12 (redis-server)");
	plan_call(plans, task, SYS_getpid);
	uint32_t pid = plan_result(plans);
	plan_note(plans, "open what was open");
	plan_call(plans, task, SYS_openat, IMM(AT_FDCWD),
		  DATA(plans_data(plans, "/nowhere", 9, 1)), IMM(2));
	write_plans();
	interpret(task);
	struct fsnap_error err = { .code = FSNAP_E_OK };
	assert_int_equal(plans_failure(plans, ctl, FSNAP_E_RESTORE_STEP, &err), -1);
	assert_int_equal(err.code, FSNAP_E_RESTORE_STEP);
	assert_int_equal(err.sys, ENOENT);
	assert_string_equal(err.message,
			    "process 12 (redis-server): step 1 (open what was open): "
			    "openat(AT_FDCWD, data+0 \"/nowhere\", 2): No such file or directory");
	(void)pid;
}

static void failure_without_errno_says_what_came_instead(void **state)
{
	(void)state;
	uint32_t task = plans_task(plans, 0, "process 5 (x)");
	plan_call(plans, task, SYS_dup, IMM(1));
	uint32_t fd = plan_result(plans);
	plan_call(plans, task, SYS_fcntl, SLOT(fd), IMM(F_GETFD));
	plan_accept_equal(plans, 77);
	write_plans();
	interpret(task);
	int dup = (int)plans_slot(plans, ctl, fd);
	close(dup);
	struct fsnap_error err = { .code = FSNAP_E_OK };
	plans_failure(plans, ctl, FSNAP_E_SYSTEM, &err);
	char expected[128];
	snprintf(expected, sizeof(expected),
		 "process 5 (x): step 1: fcntl($0=%d, 1) gave 0 instead of 77", dup);
	assert_string_equal(err.message, expected);
	assert_int_equal(err.sys, 0);
}

static void listing_is_readable(void **state)
{
	(void)state;
	uint32_t a = plans_task(plans, 1, "process 1 (init)");
	uint32_t b = plans_task(plans, 2, "thread 2 of process 1");
	plan_thread(plans, a, b);
	plan_note(plans, "end");
	plan_park(plans, a, 1);
	plan_call(plans, a, SYS_getppid);
	plan_accept_any(plans);
	plan_note(plans, "%s", "");
	plan_call(plans, b, SYS_mmap, IMM(0x7fff00000000), IMM(4096), IMM(3), IMM(0x32), IMM(-1));
	plan_accept_equal(plans, 0);
	plan_call(plans, b, SYS_close, IMM(0));
	uint32_t slot = plan_result(plans);
	plan_copy(plans, b, DATA(plans_data(plans, "\1\2\3", 4, 1)), SLOT(slot), 4);
	plan_post(plans, b, 3, 1);
	plan_wait(plans, b, 3, 2);
	plan_call(plans, b, 4000, IMM(1));

	cleanup_free char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	plans_explain(plans, out);
	fclose(out);
	assert_string_equal(text,
		"process 1 (init): 3 operations\n"
		"     0  start thread 2 of process 1\n"
		"     1  park until release 1                                          end\n"
		"     2  getppid() = any                                               end\n"
		"\n"
		"thread 2 of process 1: 6 operations\n"
		"     0  mmap(0x7fff00000000, 4096, 3, 50, -1) = 0\n"
		"     1  close(0) -> $0\n"
		"     2  copy 4 bytes to data+0 from $0\n"
		"     3  post 1 to barrier 3\n"
		"     4  wait until barrier 3 is 2\n"
		"     5  syscall_4000(1)\n");
}

static void strings_show_from_where_they_are_used(void **state)
{
	(void)state;
	uint32_t task = plans_task(plans, 0, "x");
	plans_data(plans, NULL, 3, 1);
	uint32_t path = plans_data(plans, "/etc/hosts", 11, 1);
	uint32_t number = plans_data(plans, "AB\0\0", 4, 4);
	plan_call(plans, task, SYS_chdir, DATA(path));
	plan_call(plans, task, SYS_chdir, DATA(path + 5));
	plan_call(plans, task, SYS_chdir, DATA(number));
	cleanup_free char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	plans_explain(plans, out);
	fclose(out);
	assert_non_null(strstr(text, "chdir(data+0x3 \"/etc/hosts\")\n"));
	assert_non_null(strstr(text, "chdir(data+0x8 \"hosts\")\n"));
	assert_non_null(strstr(text, "chdir(data+0x10)\n"));
}

static void pointers_hold_addresses_of_the_task(void **state)
{
	(void)state;
	uint32_t task = plans_task(plans, 0, "x");
	uint32_t text = plans_data(plans, "hello", 6, 1);
	uint32_t vector = plans_data(plans, (uint64_t[]){ 0, 6 }, 16, 8);
	plans_pointer(plans, vector, text);
	plan_call(plans, task, SYS_memfd_create, DATA(plans_data(plans, "m", 2, 1)), IMM(0));
	uint32_t fd = plan_result(plans);
	plan_call(plans, task, SYS_writev, SLOT(fd), DATA(vector), IMM(1));
	plan_accept_equal(plans, 6);
	write_plans();
	interpret(task);
	assert_int_equal(ctl->failed, 0);
	char hello[6] = "";
	int made = (int)plans_slot(plans, ctl, fd);
	assert_int_equal(pread(made, hello, 6, 0), 6);
	assert_string_equal(hello, "hello");
	close(made);
}

static void running_out_of_memory_is_remembered(void **state)
{
	(void)state;
	uint32_t task = plans_task(plans, 0, "x");
	plan_call(plans, task, SYS_getpid);
	plans_data(plans, NULL, (size_t)1 << 33, 8);
	plan_call(plans, task, SYS_getpid);
	plan_accept_equal(plans, 1);
	plan_note(plans, "after");
	char room[4096];
	struct fsnap_error err = { .code = FSNAP_E_OK };
	assert_int_equal(plans_write(plans, (struct ctl *)room, 0, &err), -1);
	assert_int_equal(err.code, FSNAP_E_NOMEM);
}

static void many_operations_and_data(void **state)
{
	(void)state;
	uint32_t refs[1000];
	for (uint32_t t = 0; t < 10; t++)
		plans_task(plans, 0, "x");
	for (uint32_t i = 0; i < 1000; i++) {
		refs[i] = plans_data(plans, &i, sizeof(i), 4);
		plan_call(plans, i % 10, SYS_getpid, IMM(i));
	}
	write_plans();
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(*(uint32_t *)plans_data_at(plans, ctl, refs[i]), i);
		struct plan_op *op = ctl_op(ctl, ctl_task(ctl, i % 10)->first_op + i / 10);
		assert_int_equal(op->arg[0], i);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(layout_keeps_the_contract),
		TEST(slots_carry_results),
		TEST(failure_names_task_step_call_and_cause),
		TEST(failure_without_errno_says_what_came_instead),
		TEST(listing_is_readable),
		TEST(strings_show_from_where_they_are_used),
		TEST(pointers_hold_addresses_of_the_task),
		TEST(running_out_of_memory_is_remembered),
		TEST(many_operations_and_data),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
