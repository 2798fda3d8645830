/*
 * wake.bpf.c - until when threads would have slept that a stop wakes.
 *
 * A call that sleeps with a time limit keeps it in a timer on its stack (kernel/time/sleep_timeout.c,
 * schedule_hrtimeout_range()); once it is woken, that timer is cancelled and nothing remembers it. So it
 * is looked at while it is being cancelled, by the thread itself, which is about to stop: no user code
 * of it runs in between.
 */
#include "bpf/kernel.h"

#include "bpf/wake_shape.h"

#define JOBCTL_TRAP_STOP (1ul << 19) /* include/linux/sched/jobctl.h: PTRACE_INTERRUPT has been asked for */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct hrtimer_clock_base {
	int clockid;
};

struct hrtimer {
	long long _softexpires;
	struct hrtimer_clock_base *base;
};

struct task_struct___wake {
	int tgid;
	unsigned long jobctl;
	struct task_struct___wake *parent; /* of a tracee: its tracer */
};

struct hrtimer_sleeper {
	struct hrtimer timer;
	struct task_struct___wake *task;
};

struct wait_queue_entry {
	void *private;
};

/* io_uring/io_uring.h; with a timer since Linux 6.12, hrtimer_sleepers before. */
struct io_wait_queue {
	struct wait_queue_entry wq;
	long long min_timeout; /* 0: that is over, or there is none */
	long long timeout;     /* KTIME_MAX: none */
	struct hrtimer t;
};

#pragma clang attribute pop

#define KTIME_MAX 0x7fffffffffffffffll

struct wake_limit limits[WAKE_THREADS];
struct wake_told told;

/* Run once, for the tracer: it may not know its own number. */
SEC("iter/task")
int name_tracer(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	if (!task)
		return 0;
	told.monotonic = (__s64)bpf_ktime_get_ns();
	told.tracer = task->tgid;
	return 0;
}

/* Until when its task waits; 0: it is not this task's, or there is no end. */
static __s64 end_of(struct hrtimer *timer, struct task_struct___wake *task)
{
	struct hrtimer_sleeper *sleeper = (void *)timer;
	if (BPF_CORE_READ(sleeper, task) == task)
		return BPF_CORE_READ(timer, _softexpires);
	if (!bpf_core_field_exists(((struct io_wait_queue *)0)->t))
		return 0;
	struct io_wait_queue *queue =
		(void *)((char *)timer - bpf_core_field_offset(struct io_wait_queue, t));
	if (BPF_CORE_READ(queue, wq.private) != task)
		return 0;
	__s64 end = BPF_CORE_READ(queue, timeout);
	return end == KTIME_MAX ? 0 : end;
}

SEC("tp_btf/hrtimer_cancel")
int BPF_PROG(note_limit, struct hrtimer *timer)
{
	struct task_struct___wake *task = (void *)bpf_get_current_task_btf();
	if (!(BPF_CORE_READ(task, jobctl) & JOBCTL_TRAP_STOP) ||
	    BPF_CORE_READ(task, parent, tgid) != told.tracer)
		return 0;
	__s64 end = end_of(timer, task);
	if (!end)
		return 0;
	__u32 place = __sync_fetch_and_add(&told.n, 1);
	if (place >= WAKE_THREADS)
		return 0;
	struct wake_limit *limit = &limits[place & (WAKE_THREADS - 1)];
	limit->tid = number_of(task);
	limit->clock = BPF_CORE_READ(timer, base, clockid);
	limit->expires = end;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
