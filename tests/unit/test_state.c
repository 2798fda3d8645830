/*
 * test_state.c - what a process has besides memory and descriptors survives a dump and a restore.
 *
 * A child gives itself every kind of state; the survey must find it (from outside by ptrace, inside
 * by a plan that the child runs itself).  A second child, made by fork and with state of its own
 * in the way, runs the plan that rebuilds the first; the survey must find the same again.
 */
#include "tests/unit/state_world.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

#define NICENESS 13 /* whatever that of the test run is: it can only be raised */

static char altstack[65536], other_stack[65536];
static int exit_cell; /* something for set_tid_address(2) */
static int result_pipe[2];

/* --- the first child ----------------------------------------------------------------------- */

static void on_signal(int signo)
{
	(void)signo;
}

static void set_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK };
	sigaddset(&action.sa_mask, SIGHUP);
	SAY(sigaction(SIGUSR1, &action, NULL) == 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR2, SIG_DFL);
	action = (struct sigaction){ .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT };
	SAY(sigaction(SIGCHLD, &action, NULL) == 0);
	stack_t stack = { .ss_sp = altstack, .ss_size = sizeof(altstack) };
	SAY(sigaltstack(&stack, NULL) == 0);

	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &set, NULL);
	union sigval first = { .sival_int = 71 }, second = { .sival_int = 72 };
	SAY(sigqueue(getpid(), SIGRTMIN + 3, first) == 0);
	SAY(sigqueue(getpid(), SIGRTMIN + 3, second) == 0);
	SAY(kill(getpid(), SIGTERM) == 0);
	SAY(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1) == 0);
}

static void set_timers(void)
{
	struct itimerval prof = { { 7, 0 }, { 1000, 0 } };
	SAY(setitimer(ITIMER_PROF, &prof, NULL) == 0);
	for (int id = 0; id < 6; id++) {
		struct kernel_event {
			uint64_t value;
			int32_t signo, notify, tid, padding[11];
		} event = { 0x1234 + (uint64_t)id, SIGUSR1, id == 4 ? SIGEV_NONE : SIGEV_SIGNAL, 0, { 0 } };
		int got = id;
		SAY(syscall(SYS_timer_create, id == 5 ? CLOCK_REALTIME : CLOCK_MONOTONIC, &event, &got) == 0);
		SAY(got == id);
	}
	for (int id = 0; id < 3; id++)
		SAY(syscall(SYS_timer_delete, id) == 0);
	struct itimerspec spec = { { 3, 5 }, { 5000, 0 } };
	SAY(syscall(SYS_timer_settime, 3, 0, &spec, NULL) == 0);
}

static void set_identity(void)
{
	umask(0137);
	SAY(prctl(PR_SET_NAME, "odd) name\n") == 0);
	SAY(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	SAY(prctl(PR_SET_TIMERSLACK, 123456) == 0);
	SAY(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	SAY(personality(ADDR_NO_RANDOMIZE) >= 0);
	SAY(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
	syscall(SYS_set_tid_address, &exit_cell);
	cleanup_fd int fd = open("/proc/self/oom_score_adj", O_WRONLY);
	SAY(write(fd, "321", 3) == 3);
	struct rlimit files = { 77, 1000 }, core = { 0, 4096 };
	SAY(setrlimit(RLIMIT_NOFILE, &files) == 0);
	SAY(setrlimit(RLIMIT_CORE, &core) == 0);
	SAY(setpriority(PRIO_PROCESS, 0, NICENESS) == 0);
	SAY(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0);
	cpu_set_t cpus;
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	SAY(sched_setaffinity(0, sizeof(cpus), &cpus) == 0);
}

static void set_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_acct, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 99),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	SAY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &program) == 0);
	code[1].k = SYS_swapon;
	SAY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
}

static void set_creds(void)
{
	gid_t groups[] = { 2001, 2002, 2003 };
	SAY(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT) == 0);
	SAY(prctl(PR_SET_KEEPCAPS, 1) == 0);
	SAY(setgroups(3, groups) == 0);
	SAY(setresgid(1001, 1002, 1003) == 0);
	SAY(setresuid(1004, 1005, 1006) == 0);
	uint32_t caps = 1u << CAP_NET_ADMIN | 1u << CAP_SETUID | 1u << CAP_SETPCAP;
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { caps, caps, 1u << CAP_NET_ADMIN }, { 0, 0, 0 } };
	SAY(syscall(SYS_capset, &header, data) == 0);
	SAY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0) == 0);
	SAY(syscall(SYS_setfsuid, 1004) == 1005);
	SAY(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT) == 0);
	data[0].effective = 1u << CAP_NET_ADMIN;
	SAY(syscall(SYS_capset, &header, data) == 0);
	SAY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	SAY(prctl(PR_SET_DUMPABLE, 1) == 0);
}

static void become_somebody(void)
{
	set_identity();
	set_signals();
	set_timers();
	if (geteuid() == 0) {
		set_filter();
		set_creds();
	}
	SAY(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
}

/* --- the second child ------------------------------------------------------------------------ */

/* State of the restoring process, which must not come through. */
static void be_in_the_way(void)
{
	signal(SIGUSR2, on_signal);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	stack_t stack = { .ss_sp = other_stack, .ss_size = sizeof(other_stack) };
	sigaltstack(&stack, NULL);
	umask(0);
}

static void run_rebuild(void)
{
	be_in_the_way();
	uint64_t mask = ~0ull;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	signal(SIGCHLD, on_signal);
	kill(getpid(), SIGCHLD); /* as from a zombie that was rebuilt */
	interpret(0);
	if (ctl->failed)
		_exit(write(result_pipe[1], "f", 1) == 1);
	SAY(write(result_pipe[1], "k", 1) == 1);
}

static void build_rebuild(struct plans *plans, const struct surveyed *from,
			  const struct inherited *self)
{
	struct fsnap_error err = { .code = FSNAP_E_OK };
	struct rebuild r = { plans, plans_task(plans, 0, "the second child"), &from->process.image,
			     &from->task.image, &from->process.mm, self, 0, NULL, 0 };
	rebuild_first(&r);
	rebuild_task(&r);
	CHECK(rebuild_process(&r, &err));
	limits_rebuild(&r);
	CHECK(rebuild_privileges(&r, &err));
	identity_settle(&r);
	timers_arm(&r);
	/* The engine's signal return does this. */
	plan_call(plans, r.task, SYS_rt_sigprocmask, IMM(SIG_SETMASK),
		  DATA(plans_data(plans, &from->task.image.sigmask, 8, 8)), IMM(0), IMM(8));
}

/* --- the tests ----------------------------------------------------------------------------------- */

static const image_sigaction *action_of(const image_process *image, int signo)
{
	for (unsigned i = 0; i < image->actions.actions_len; i++)
		if (image->actions.actions_val[i].signo == signo)
			return &image->actions.actions_val[i];
	return NULL;
}

static void assert_found_as_set(const struct surveyed *s)
{
	const image_process *p = &s->process.image;
	const image_thread *t = &s->task.image;
	assert_int_equal(p->umask, 0137);
	assert_int_equal(p->subreaper, 1);
	assert_int_equal(p->thp_disable, 1);
	assert_int_equal(t->personality, ADDR_NO_RANDOMIZE);
	assert_int_equal(p->oom_score_adj, 321);
#ifndef __SANITIZE_ADDRESS__ /* it makes mlockall(2) do nothing, for the sake of its shadow memory */
	assert_int_equal(s->process.mm.lock_future, MCL_FUTURE | MCL_ONFAULT);
#endif
	assert_int_equal(p->dumpable, 1);
	assert_int_equal(p->limits.limits_val[RLIMIT_NOFILE].current, 77);
	assert_int_equal(p->limits.limits_val[RLIMIT_NOFILE].maximum, 1000);
	assert_string_equal(t->comm, "odd) name\n");
	assert_int_equal(t->timerslack_ns, 123456);
	assert_int_equal(t->pdeath_signal, SIGUSR2);
	assert_int_equal(t->clear_child_tid, (uintptr_t)&exit_cell);
	assert_int_equal(t->sched.nice, NICENESS);
	assert_int_equal(t->sched.ioprio, 2 << 13 | 6);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
		assert_int_equal(t->sched.affinity.affinity_len, 1);
		assert_int_equal(t->sched.affinity.affinity_val[0], 1);
	}
	assert_int_equal(action_of(p, SIGUSR1)->handler, (uintptr_t)on_signal);
	assert_int_equal(action_of(p, SIGUSR1)->mask, 1 << (SIGHUP - 1));
	assert_int_equal(action_of(p, SIGPIPE)->handler, (uintptr_t)SIG_IGN);
	assert_int_equal(action_of(p, SIGCHLD)->flags & SA_NOCLDWAIT, SA_NOCLDWAIT);
	assert_null(action_of(p, SIGUSR2));
	assert_int_equal(t->sigmask & 1 << (SIGTERM - 1), 1 << (SIGTERM - 1));
	assert_int_equal(t->altstack_sp, (uintptr_t)altstack);
	assert_int_equal(t->altstack_size, sizeof(altstack));
	assert_int_equal(t->pending.pending_len, 1);
	assert_int_equal(p->pending.pending_len, 3);
	siginfo_t info;
	memcpy(&info, t->pending.pending_val[0].raw, sizeof(info));
	assert_int_equal(info.si_signo, SIGUSR1);
	assert_int_equal(info.si_code, SI_TKILL);
	assert_int_equal(p->timers.timers_len, 3);
	const image_posix_timer *timer = p->timers.timers_val;
	for (unsigned i = 0; i < 3; i++, timer++) {
		assert_in_range(timer->id, 3, 5);
		assert_int_equal(timer->sigval, 0x1234 + timer->id);
		assert_int_equal(timer->notify, timer->id == 4 ? SIGEV_NONE : SIGEV_SIGNAL);
		assert_int_equal(timer->clock, timer->id == 5 ? CLOCK_REALTIME : CLOCK_MONOTONIC);
	}
	assert_int_equal(p->itimers[ITIMER_PROF].interval_us, 7000000);
	if (geteuid() != 0)
		return;
	static const unsigned uid[] = { 1004, 1005, 1006, 1004 }, gid[] = { 1001, 1002, 1003, 1002 };
	assert_memory_equal(t->creds.uid, uid, sizeof(uid));
	assert_memory_equal(t->creds.gid, gid, sizeof(gid));
	assert_int_equal(t->creds.groups.groups_len, 3);
	assert_int_equal(t->creds.groups.groups_val[2], 2003);
	assert_int_equal(t->creds.ambient, 1 << CAP_NET_ADMIN);
	assert_int_equal(t->creds.effective, 1 << CAP_NET_ADMIN);
	assert_int_equal(t->creds.bounding >> CAP_SYS_BOOT & 1, 0);
	assert_int_equal(t->creds.securebits, SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT);
	assert_int_equal(t->creds.no_new_privs, 1);
	assert_int_equal(t->seccomp, 2);
	assert_int_equal(t->filters.filters_len, 2);
	assert_int_equal(t->filters.filters_val[0].flags, SECCOMP_FILTER_FLAG_LOG);
	assert_int_equal(((struct sock_filter *)t->filters.filters_val[0].code.code_val)[1].k, SYS_acct);
}

static void assert_close(uint64_t a, uint64_t b, uint64_t tolerance)
{
	assert_in_range(a > b ? a - b : b - a, 0, tolerance);
}

/* Removes what must differ: who sent is as it was, but identities are each one's own. */
static void assert_same_timers(image_process *a, image_process *b)
{
	assert_int_equal(a->timers.timers_len, b->timers.timers_len);
	for (unsigned i = 0; i < a->timers.timers_len; i++) {
		image_posix_timer *x = &a->timers.timers_val[i], *y = NULL;
		for (unsigned j = 0; j < b->timers.timers_len; j++)
			if (b->timers.timers_val[j].id == x->id)
				y = &b->timers.timers_val[j];
		assert_non_null(y);
		assert_close(x->value_ns, y->value_ns, 20000000000ull);
		y->value_ns = x->value_ns;
		assert_memory_equal(x, y, sizeof(*x));
	}
	for (int i = 0; i < 3; i++) {
		assert_close(a->itimers[i].value_us, b->itimers[i].value_us, 20000000);
		assert_int_equal(a->itimers[i].interval_us, b->itimers[i].interval_us);
	}
}

static size_t encode(void *image, xdrproc_t proc, char *buf, size_t size)
{
	XDR xdr;
	xdrmem_create(&xdr, buf, (unsigned)size, XDR_ENCODE);
	assert_true(proc(&xdr, image));
	return xdr_getpos(&xdr);
}

static void assert_same_threads(image_thread *a, image_thread *b)
{
	static char x[1 << 16], y[1 << 16];
	b->tid = a->tid;
	size_t n = encode(a, (xdrproc_t)xdr_image_thread, x, sizeof(x));
	assert_int_equal(n, encode(b, (xdrproc_t)xdr_image_thread, y, sizeof(y)));
	assert_memory_equal(x, y, n);
}

static void assert_same_processes(image_process *a, image_process *b)
{
	assert_same_timers(a, b);
	assert_int_equal(a->umask, b->umask);
	assert_int_equal(a->dumpable, b->dumpable);
	assert_int_equal(a->subreaper, b->subreaper);
	assert_int_equal(a->thp_disable, b->thp_disable);
	assert_int_equal(a->oom_score_adj, b->oom_score_adj);
	assert_memory_equal(a->limits.limits_val, b->limits.limits_val, 16 * sizeof(image_limit));
	assert_int_equal(a->actions.actions_len, b->actions.actions_len);
	assert_memory_equal(a->actions.actions_val, b->actions.actions_val,
			    a->actions.actions_len * sizeof(image_sigaction));
	assert_int_equal(a->pending.pending_len, b->pending.pending_len);
	assert_memory_equal(a->pending.pending_val, b->pending.pending_val,
			    a->pending.pending_len * sizeof(image_siginfo));
}

static void what_is_set_is_found_and_rebuilt(void **state)
{
	(void)state;
	struct fsnap_error err = { .code = FSNAP_E_OK };
	struct child first, second;
	struct surveyed a, b;
	struct inherited self;
	start(&first, become_somebody);
	look_at(&first, &a);
	finish(&first);
	if (geteuid() != 0)
		print_message("without root: credentials and seccomp are not tried\n");
	assert_found_as_set(&a);

	CHECK(inherited_collect(&self, &err));
	struct plans *plans = plans_new();
	build_rebuild(plans, &a, &self);
	write_plans(plans);
	assert_return_code(pipe2(result_pipe, O_CLOEXEC), errno);
	mode_t mask = umask(022);
	umask(mask);
	start(&second, run_rebuild);
	char result;
	assert_int_equal(read(result_pipe[0], &result, 1), 1);
	check_plan(plans);
	look_at(&second, &b);
	assert_int_equal(a.process.mm.lock_future, b.process.mm.lock_future);
	finish(&second);
	assert_same_threads(&a.task.image, &b.task.image);
	assert_same_processes(&a.process.image, &b.process.image);
	plans_free(plans);
	inherited_free(&self);
	forget(&a);
	forget(&b);
}

static void nothing(void)
{
}

/* What equals the restoring process is not set again: only what differs or may not be inherited. */
static void an_ordinary_process_needs_no_privileges(void **state)
{
	(void)state;
	struct fsnap_error err = { .code = FSNAP_E_OK };
	struct child child;
	struct surveyed s;
	struct inherited self;
	start(&child, nothing);
	look_at(&child, &s);
	finish(&child);
	CHECK(inherited_collect(&self, &err));
	struct plans *plans = plans_new();
	build_rebuild(plans, &s, &self);
	cleanup_free char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	plans_explain(plans, out);
	fclose(out);
	static const char *const privileged[] = { "setresuid", "setgroups", "capset", "seccomp",
						  "sched_set", "ioprio_set", "oom_score_adj" };
	for (size_t i = 0; i < sizeof(privileged) / sizeof(*privileged); i++)
		if (strstr(text, privileged[i]))
			fail_msg("a plan that should not need %s:\n%s", privileged[i], text);
	plans_free(plans);
	inherited_free(&self);
	forget(&s);
}

static void status_is_parsed_as_it_is_printed(void **state)
{
	(void)state;
	struct fsnap_error err = { .code = FSNAP_E_OK };
	struct task_status status;
	CHECK(status_parse("Name:\tUid:\t7\nUmask:\t0027\nState:\tS (sleeping)\n"
			   "Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t4294967294\nGroups:\t10 20 30 \n"
			   "SigPnd:\t0000000000000001\nShdPnd:\t8000000000000000\n"
			   "CapBnd:\t000001fffeffffff\nNoNewPrivs:\t1\nSeccomp:\t2\n"
			   "Seccomp_filters:\t3\n", &status, &err));
	assert_int_equal(status.umask, 027);
	assert_int_equal(status.creds.uid[0], 1);
	assert_int_equal(status.creds.uid[3], 4);
	assert_int_equal(status.creds.gid[3], 4294967294u);
	assert_int_equal(status.creds.groups.groups_len, 3);
	assert_int_equal(status.creds.groups.groups_val[1], 20);
	assert_int_equal(status.pending, 1);
	assert_int_equal(status.shared_pending, 1ull << 63);
	assert_int_equal(status.creds.bounding, 0x1fffeffffffull);
	assert_int_equal(status.creds.no_new_privs, 1);
	assert_int_equal(status.seccomp, 2);
	assert_int_equal(status.filters, 3);
	free(status.creds.groups.groups_val);
}

/* Kernels before 6.15 number timers themselves. */
static void timer_ids_can_be_counted_up_to(void **state)
{
	(void)state;
	struct fsnap_error err = { .code = FSNAP_E_OK };
	image_posix_timer timers[] = {
		{ .id = 9, .clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE },
		{ .id = 4, .clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE },
	};
	image_process image = { .timers = { 2, timers } };
	struct inherited self = { .timer_ids = false };
	struct plans *plans = plans_new();
	struct rebuild r = { plans, plans_task(plans, 0, "x"), &image, NULL, NULL, &self, 0, NULL, 0 };
	CHECK(timers_rebuild(&r, &err));
	write_plans(plans);
	pid_t pid = fork();
	if (pid == 0) {
		interpret(0);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	check_plan(plans);
	plans_free(plans);
	timers[0].id = 1000000;
	plans = r.plans = plans_new();
	plans_task(plans, 0, "x");
	assert_int_equal(timers_rebuild(&r, &err), -1);
	assert_int_equal(err.code, FSNAP_E_KERNEL_LACKS);
	assert_string_not_equal(err.hint, "");
	plans_free(plans);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(status_is_parsed_as_it_is_printed),
		cmocka_unit_test(timer_ids_can_be_counted_up_to),
		cmocka_unit_test(what_is_set_is_found_and_rebuilt),
		cmocka_unit_test(an_ordinary_process_needs_no_privileges),
	};
	if (map_ctl() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
