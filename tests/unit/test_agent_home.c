/*
 * test_agent_home.c - the serving agent answers orders, and when its engine is gone the
 * process lives on as if nothing had happened.
 *
 * This program is the engine; a child is the target. A signal handler in the target enters
 * the agent: the frame the kernel has just built for it is the way home, as it is at dump.
 */
#include "tests/unit/agent_world.h"

/* What the target finds when it is home again is its exit status. */
enum { HOME_AND_CLEAN = 0, MAPPING_LEFT, SOCKET_LEFT, NOT_HOME };

enum { SERVER = 0, LEAVERS = 4, ORDERED = 6 }; /* tasks: 0 serves, 1..4 leave, 6 is ordered */

/* The `syscall; ret` of the target's own text. */
__asm__(".text\n"
	"gadget:	syscall\n"
	"	ret\n");
extern const char gadget[];

static __thread uint32_t my_task;
static bool with_chain;

/* Not to be returned to: neither this call nor the handler that makes it. */
__attribute__((noreturn)) static void enter(uint32_t offset, uint32_t task)
{
	uintptr_t stack = (uintptr_t)ctl + ctl_task(ctl, task)->stack;
	__asm__ volatile("mov %[stack], %%rsp\n"
			 "jmp *%[entry]"
			 :
			 : [stack] "b"(stack), [entry] "a"(ctl->base + offset), "D"(ctl),
			   "S"((uint64_t)task)
			 : "memory");
	__builtin_unreachable();
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	ctl_task(ctl, my_task)->home_frame = (uintptr_t)context;
	if (my_task != SERVER)
		enter(entries()->start, my_task);
	if (with_chain) { /* right below its ucontext the kernel has put libc's sigreturn */
		ctl->chain = (uintptr_t)context - sizeof(uint64_t);
		ctl->gadget = (uintptr_t)gadget;
	}
	enter(entries()->serve, SERVER);
}

static void visit_the_agent(void)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	sigfillset(&action.sa_mask);
	sigaction(SIGUSR1, &action, NULL);
	/* What a plain C program would notice of a wrong return: registers, floating point, mask. */
	volatile double third = 1.0 / 3;
	double before = third * 3;
	sigset_t mask;
	raise(SIGUSR1);
	if (third * 3 != before || sigprocmask(SIG_BLOCK, NULL, &mask) != 0 ||
	    sigismember(&mask, SIGUSR1))
		_exit(NOT_HOME);
}

static void *leaver(void *number)
{
	my_task = (uint32_t)(uintptr_t)number;
	visit_the_agent();
	return number;
}

static int what_is_left(uint64_t base, int lowest_fd)
{
	unsigned char there;
	int fd = dup(STDERR_FILENO);
	if (fd != lowest_fd)
		return SOCKET_LEFT;
	return mincore((void *)(uintptr_t)base, 4096, &there) == 0 ? MAPPING_LEFT : HOME_AND_CLEAN;
}

static pid_t start_target(bool chain, uint32_t leavers)
{
	with_chain = chain;
	ctl->inside += leavers;
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	uint64_t base = ctl->base;
	int lowest_fd = dup(STDERR_FILENO);
	close(lowest_fd);
	pthread_t thread[LEAVERS];
	for (uintptr_t i = 0; i < leavers; i++)
		pthread_create(&thread[i], NULL, leaver, (void *)(i + 1));
	my_task = SERVER;
	visit_the_agent();
	for (uintptr_t i = 0; i < leavers; i++) {
		void *number = NULL;
		pthread_join(thread[i], &number);
		if (number != (void *)(i + 1))
			_exit(NOT_HOME);
	}
	_exit(what_is_left(base, lowest_fd));
}

static void assert_comes_home(pid_t target, int expected)
{
	int status = 0;
	for (int ms = 0; ms < PATIENCE_MS; ms++) {
		if (waitpid(target, &status, WNOHANG) == target) {
			if (WIFSIGNALED(status))
				fail_msg("the target was killed: %s", strsignal(WTERMSIG(status)));
			assert_int_equal(WEXITSTATUS(status), expected);
			return;
		}
		usleep(1000);
	}
	kill(target, SIGKILL);
	fail_msg("the target did not come home");
}

/* What the engine does first: its own copy of the end that the agent has made for it. */
static int take_peer(pid_t target)
{
	for (int ms = 0; ms < PATIENCE_MS && __atomic_load_n(&ctl->peer, __ATOMIC_ACQUIRE) < 0; ms++)
		usleep(1000);
	cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, target, 0);
	assert_return_code(pidfd, errno);
	int fd = (int)syscall(SYS_pidfd_getfd, pidfd, ctl->peer, 0);
	assert_return_code(fd, errno);
	return fd;
}

static void send_order(int fd, uint32_t task)
{
	struct agent_order order = {.verb = AGENT_RUN, .task = task};
	assert_int_equal(send(fd, &order, sizeof(order), MSG_NOSIGNAL), sizeof(order));
}

static void assert_order_gives(int fd, uint32_t task, uint32_t state)
{
	struct agent_answer answer = {0};
	send_order(fd, task);
	assert_int_equal(recv(fd, &answer, sizeof(answer), 0), sizeof(answer));
	assert_int_equal(answer.task, task);
	assert_int_equal(answer.state, state);
}

static void orders_are_run_and_answered(void **state)
{
	(void)state;
	plan_of(ORDERED);
	CALL_TO(0, SYS_getpid);
	CALL_TO(1, SYS_gettid);
	plan_of(ORDERED + 1);
	CALL_TO(2, SYS_close, IMM(-1));
	pid_t target = start_target(true, 0);
	int fd = take_peer(target);
	assert_order_gives(fd, ORDERED, TASK_PARKED);
	assert_int_equal(slot(0), target);
	assert_int_equal(slot(1), target);
	assert_order_gives(fd, ORDERED + 1, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, ORDERED + 1)->result, -EBADF);
	*ctl_slot(ctl, 0) = 0;
	assert_order_gives(fd, ORDERED, TASK_PARKED); /* again, after a failure */
	assert_int_equal(slot(0), target);
	close(fd);
	assert_comes_home(target, HOME_AND_CLEAN);
}

static void threads_come_home_together(void **state)
{
	(void)state;
	plan_of(ORDERED);
	CALL_TO(0, SYS_getpid);
	plan_of(1);
	OP(PLAN_PARK, IMM(1)); /* never released */
	plan_of(2);
	OP(PLAN_WAIT, IMM(0), IMM(1)); /* never posted */
	pid_t target = start_target(true, LEAVERS);
	int fd = take_peer(target);
	assert_state(1, TASK_PARKED);
	assert_state(2, TASK_RUNNING);
	assert_state(3, TASK_PARKED);
	assert_state(4, TASK_PARKED);
	assert_order_gives(fd, ORDERED, TASK_PARKED);
	close(fd);
	assert_comes_home(target, HOME_AND_CLEAN);
	assert_int_equal(ctl->inside, 0);
}

static void without_a_chain_the_mapping_stays(void **state)
{
	(void)state;
	pid_t target = start_target(false, LEAVERS);
	int fd = take_peer(target);
	for (uint32_t i = 1; i <= LEAVERS; i++)
		assert_state(i, TASK_PARKED);
	assert_order_gives(fd, ORDERED, TASK_PARKED); /* an empty plan */
	close(fd);
	assert_comes_home(target, MAPPING_LEFT);
	assert_int_equal(ctl->inside, 0);
}

static void mapping_stays_while_somebody_is_inside(void **state)
{
	(void)state;
	ctl->inside = 1; /* who never leaves */
	pid_t target = start_target(true, 0);
	int fd = take_peer(target);
	assert_order_gives(fd, ORDERED, TASK_PARKED);
	close(fd);
	assert_comes_home(target, MAPPING_LEFT);
}

static void engine_dies_during_an_order(void **state)
{
	(void)state;
	plan_of(ORDERED);
	OP(PLAN_PARK, IMM(1));
	pid_t target = start_target(true, 0);
	int fd = take_peer(target);
	send_order(fd, ORDERED);
	assert_state(ORDERED, TASK_PARKED);
	close(fd);
	assert_comes_home(target, HOME_AND_CLEAN);
	assert_int_equal(ctl_task(ctl, ORDERED)->state, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, ORDERED)->result, -EPIPE);
}

static void order_for_nobody_sends_it_home(void **state)
{
	(void)state;
	pid_t target = start_target(true, 0);
	cleanup_fd int fd = take_peer(target);
	send_order(fd, N_TASKS);
	assert_comes_home(target, HOME_AND_CLEAN);
}

static void engine_that_never_comes_is_not_awaited_for_ever(void **state)
{
	(void)state;
	struct timespec then, now;
	clock_gettime(CLOCK_MONOTONIC, &then);
	assert_comes_home(start_target(true, 0), HOME_AND_CLEAN);
	clock_gettime(CLOCK_MONOTONIC, &now);
	assert_in_range((now.tv_sec - then.tv_sec) * 1000 + (now.tv_nsec - then.tv_nsec) / 1000000,
			AGENT_PATIENCE_MS - 10, PATIENCE_MS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(orders_are_run_and_answered),
		TEST(threads_come_home_together),
		TEST(without_a_chain_the_mapping_stays),
		TEST(mapping_stays_while_somebody_is_inside),
		TEST(engine_dies_during_an_order),
		TEST(order_for_nobody_sends_it_home),
		TEST(engine_that_never_comes_is_not_awaited_for_ever),
	};
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
