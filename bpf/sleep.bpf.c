/*
 * sleep.bpf.c - the restart blocks of the threads of one process.
 */
#include "bpf/kernel.h"

#include "bpf/sleep_shape.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct timespec64 {
	long long tv_sec;
	long tv_nsec;
};

/* include/linux/restart_block.h. After 6.18 the end of a poll is one struct. */
struct restart_block {
	union {
		struct {
			__u32 *uaddr;
			__u32 val; /* where poll has the number of descriptors */
			__u64 time;
		} futex;
		struct {
			int clockid;
			union {
				void *rmtp;
			};
			__u64 expires;
		} nanosleep;
		struct {
			void *ufds;
			struct timespec64 end_time;
		} poll;
	};
};

struct restart_block___to_6_18 {
	union {
		struct {
			void *ufds;
			unsigned long tv_sec;
			unsigned long tv_nsec;
		} poll;
	};
};

struct task_struct___sleep {
	struct restart_block restart_block;
};

struct task_struct___to_6_18 {
	struct restart_block___to_6_18 restart_block;
};

#pragma clang attribute pop

struct sleep_block blocks[SLEEP_THREADS];
struct sleep_told told;

static long poll_end(const struct task_struct___sleep *task)
{
	if (bpf_core_field_exists(task->restart_block.poll.end_time))
		return BPF_CORE_READ(task, restart_block.poll.end_time.tv_sec) * 1000000000ll +
		       BPF_CORE_READ(task, restart_block.poll.end_time.tv_nsec);
	const struct task_struct___to_6_18 *before = (const void *)task;
	return (long)BPF_CORE_READ(before, restart_block.poll.tv_sec) * 1000000000ll +
	       (long)BPF_CORE_READ(before, restart_block.poll.tv_nsec);
}

SEC("iter/task")
int tell_blocks(struct bpf_iter__task *context)
{
	const struct task_struct___sleep *task = (const void *)context->task;
	if (!task || told.n >= SLEEP_THREADS)
		return 0;
	struct sleep_block *block = &blocks[told.n & (SLEEP_THREADS - 1)];
	block->tid = number_of((void *)task);
	block->first = BPF_CORE_READ(task, restart_block.futex.val);
	block->clock = BPF_CORE_READ(task, restart_block.nanosleep.clockid);
	block->remainder = (__u64)BPF_CORE_READ(task, restart_block.nanosleep.rmtp);
	block->expires = (__s64)BPF_CORE_READ(task, restart_block.nanosleep.expires);
	block->fds = (__u64)BPF_CORE_READ(task, restart_block.poll.ufds);
	block->poll_end = poll_end(task);
	block->futex = (__u64)BPF_CORE_READ(task, restart_block.futex.uaddr);
	block->futex_end = (__s64)BPF_CORE_READ(task, restart_block.futex.time);
	told.monotonic = (__s64)bpf_ktime_get_ns();
	told.boottime = (__s64)bpf_ktime_get_boot_ns();
	told.n++;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
