/*
 * test_state_rseq.c - a thread caught inside a restartable sequence is saved at its abort handler.
 *
 * A child spins inside a critical section.  Its registers in the image must stand at the abort
 * handler, its real registers must be left alone, and it must spin on.
 */
#include "tests/unit/state_world.h"

#include <linux/rseq.h>
#include <sys/rseq.h>

static volatile unsigned *entered; /* shared: how often the section was entered */
extern const char section_start[], section_end[], section_abort[];

static struct rseq_cs section;

__attribute__((noreturn)) static void spin(void)
{
	struct rseq *area = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	section = (struct rseq_cs){
		.start_ip = (uintptr_t)section_start,
		.post_commit_offset = (uint64_t)(section_end - section_start),
		.abort_ip = (uintptr_t)section_abort,
	};
	__asm__ volatile("1:\n"
			 "	mov %[section], %[pointer]\n"
			 "section_start:\n"
			 "	incl (%[entered])\n"
			 "2:	pause\n"
			 "	jmp 2b\n"
			 "section_end:\n"
			 "	.byte 0x0f, 0xb9, 0x3d\n" /* ud1, so that the signature is an operand */
			 "	.long 0x53053053\n"
			 "section_abort:\n"
			 "	jmp 1b\n"
			 : [pointer] "=m"(area->rseq_cs)
			 : [section] "r"(&section), [entered] "r"(entered)
			 : "memory");
	__builtin_unreachable();
}

static void wait_for_entry(unsigned after)
{
	for (int ms = 0; *entered == after; ms++) {
		if (ms > 20000)
			fail_msg("the child never entered its section");
		usleep(1000);
	}
}

static bool inside(uint64_t rip)
{
	return rip - section.start_ip < section.post_commit_offset;
}

static void interrupted_section_is_saved_at_its_abort_handler(void **state)
{
	(void)state;
	struct fsnap_error err = { .code = FSNAP_E_OK };
	if (!__rseq_size) {
		print_message("skipped: this libc registers no rseq area\n");
		skip();
	}
	*entered = 0;
	pid_t pid = fork();
	if (pid == 0)
		spin();
	wait_for_entry(0);
	section.start_ip = (uintptr_t)section_start;
	section.post_commit_offset = (uint64_t)(section_end - section_start);

	struct process process = { .pid = pid };
	struct task task = { .tid = pid, .process = &process };
	struct task_survey survey = { .task = &task };
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	process.mem = open(path, O_RDWR | O_CLOEXEC);
	CHECK(trace_seize(&task, false, &err));
	CHECK(trace_interrupt(&task));
	CHECK(trace_await_stop(&task, &err));
	CHECK(trace_get_state(&task, &err));
	struct user_regs_struct saved = task.regs;
	task.image.regs.regs_val = (char *)&saved;
	task.image.regs.regs_len = sizeof(saved);
	CHECK(rseq_collect_task(&survey, &err));
	print_message("stopped %s the section\n", inside(task.regs.rip) ? "inside" : "outside");
	assert_int_not_equal(task.image.rseq, 0);
	assert_false(inside(saved.rip));
	if (inside(task.regs.rip))
		assert_int_equal(saved.rip, (uintptr_t)section_abort);
	else
		assert_int_equal(saved.rip, task.regs.rip);

	unsigned before = *entered;
	trace_detach(&task);
	wait_for_entry(before); /* the kernel aborts the section, the child begins it anew */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(process.mem);
	free(task.image.xstate.xstate_val);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(interrupted_section_is_saved_at_its_abort_handler),
	};
	if (map_ctl() < 0)
		return 1;
	entered = (unsigned *)ctl;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
