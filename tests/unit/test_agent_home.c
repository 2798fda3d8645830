/*
 * test_agent_home.c - the serving agent runs its plan, and when its engine is gone the
 * process lives on as if nothing had happened.
 *
 * A child of this program is the engine: it holds the mutex that says so, until it is killed. Another is the
 * target. A signal handler in the target enters the agent: the frame the kernel has just built for it is the
 * way home, as it is at dump.
 */
#include "tests/unit/agent_world.h"

/* What the target finds when it is home again is its exit status. */
enum { HOME_AND_CLEAN = 0, MAPPING_LEFT, DESCRIPTOR_LEFT, NOT_HOME };

enum { SERVER = 0, LEAVERS = 4 }; /* tasks: 0 serves, 1..4 leave */

/* The `syscall; ret` of the target's own text. */
__asm__(".text\n"
	"gadget:	syscall\n"
	"	ret\n");
extern const char gadget[];

static __thread uint32_t my_task;
static bool with_chain;
static bool out_of_reach; /* control memory cannot be made writable */
static pid_t engine;

/* Not to be returned to: neither this call nor the handler that makes it. */
__attribute__((noreturn)) static void enter(uint32_t offset, uint32_t task)
{
	/* Who goes home without control memory has all of this in registers. */
	register uint64_t base __asm__("r12") = ctl->base;
	register uint64_t chain __asm__("r14") = ctl->chain;
	register uint64_t syscall_ret __asm__("r15") = ctl->gadget;
	uintptr_t stack = (uintptr_t)ctl + ctl_task(ctl, task)->stack;
	uint64_t bytes = out_of_reach ? -8192ull : CTL_SIZE; /* an end below the start: nothing is done */
	__asm__ volatile("mov %[stack], %%rsp\n"
			 "jmp *%[entry]"
			 :
			 : [stack] "c"(stack), [entry] "a"(ctl->base + offset), "D"(ctl),
			   "S"((uint64_t)task), "d"(bytes), "b"(ctl->size), "r"(base), "r"(chain), "r"(syscall_ret)
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
		return DESCRIPTOR_LEFT;
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

/* Holds what an engine holds, until it is killed. */
static void start_engine(void)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)ctl->engine;
	pthread_mutexattr_t attr;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	assert_int_equal(pthread_mutex_init(mutex, &attr), 0);
	engine = fork();
	if (engine == 0) {
		pthread_mutex_lock(mutex);
		for (;;)
			pause();
	}
	for (int ms = 0; ms < PATIENCE_MS && __atomic_load_n(ctl_engine(ctl), __ATOMIC_ACQUIRE) == 0; ms++)
		usleep(1000);
	assert_int_equal(*ctl_engine(ctl), engine);
}

static void kill_engine(void)
{
	kill(engine, SIGKILL);
	waitpid(engine, NULL, 0);
}

static void plan_is_run_and_home_found(void **state)
{
	(void)state;
	CALL_TO(0, SYS_getpid);
	CALL_TO(1, SYS_gettid);
	start_engine();
	pid_t target = start_target(true, 0);
	assert_state(SERVER, TASK_PARKED);
	assert_int_equal(slot(0), target);
	assert_int_equal(slot(1), target);
	usleep(20000); /* it stays while the engine lives */
	assert_int_equal(waitpid(target, NULL, WNOHANG), 0);
	kill_engine();
	assert_comes_home(target, HOME_AND_CLEAN);
}

static void failure_is_told_and_home_found(void **state)
{
	(void)state;
	CALL_TO(2, SYS_close, IMM(-1));
	start_engine();
	pid_t target = start_target(true, 0);
	assert_state(SERVER, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, SERVER)->result, -EBADF);
	kill_engine();
	assert_comes_home(target, HOME_AND_CLEAN);
}

static void threads_come_home_together(void **state)
{
	(void)state;
	CALL_TO(0, SYS_getpid);
	plan_of(1);
	OP(PLAN_PARK, IMM(1)); /* never released */
	plan_of(2);
	OP(PLAN_WAIT, IMM(0), IMM(1)); /* never posted */
	start_engine();
	pid_t target = start_target(true, LEAVERS);
	assert_state(1, TASK_PARKED);
	assert_state(2, TASK_RUNNING);
	assert_state(3, TASK_PARKED);
	assert_state(4, TASK_PARKED);
	assert_state(SERVER, TASK_PARKED);
	kill_engine();
	assert_comes_home(target, HOME_AND_CLEAN);
	assert_int_equal(ctl->inside, 0);
}

static void without_a_chain_the_mapping_stays(void **state)
{
	(void)state;
	start_engine();
	pid_t target = start_target(false, LEAVERS);
	for (uint32_t i = 0; i <= LEAVERS; i++)
		assert_state(i, TASK_PARKED);
	kill_engine();
	assert_comes_home(target, MAPPING_LEFT);
	assert_int_equal(ctl->inside, 0);
}

static void mapping_stays_while_somebody_is_inside(void **state)
{
	(void)state;
	ctl->inside = 1; /* who never leaves */
	start_engine();
	pid_t target = start_target(true, 0);
	assert_state(SERVER, TASK_PARKED);
	kill_engine();
	assert_comes_home(target, MAPPING_LEFT);
}

static void engine_dies_during_a_plan(void **state)
{
	(void)state;
	OP(PLAN_PARK, IMM(1));
	start_engine();
	pid_t target = start_target(true, 0);
	assert_state(SERVER, TASK_PARKED);
	kill_engine();
	assert_comes_home(target, HOME_AND_CLEAN);
	assert_int_equal(ctl_task(ctl, SERVER)->state, TASK_FAILED);
	assert_int_equal(ctl_task(ctl, SERVER)->result, -EPIPE);
}

static void engine_is_dead_already(void **state)
{
	(void)state;
	start_engine();
	kill_engine();
	assert_comes_home(start_target(true, 0), HOME_AND_CLEAN);
}

static void without_control_memory_it_goes_home_after_a_while(void **state)
{
	(void)state;
	struct timespec then, now;
	out_of_reach = true;
	clock_gettime(CLOCK_MONOTONIC, &then);
	assert_comes_home(start_target(true, 0), HOME_AND_CLEAN);
	clock_gettime(CLOCK_MONOTONIC, &now);
	out_of_reach = false;
	assert_in_range(now.tv_sec - then.tv_sec + 1, AGENT_PATIENCE_S, PATIENCE_MS / 1000);
	assert_int_equal(ctl_task(ctl, SERVER)->state, TASK_NEW);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(plan_is_run_and_home_found),
		TEST(failure_is_told_and_home_found),
		TEST(threads_come_home_together),
		TEST(without_a_chain_the_mapping_stays),
		TEST(mapping_stays_while_somebody_is_inside),
		TEST(engine_dies_during_a_plan),
		TEST(engine_is_dead_already),
		TEST(without_control_memory_it_goes_home_after_a_while),
	};
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
