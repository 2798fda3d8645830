/*
 * vmas.bpf.c - a sum over the mappings of a process: where they are, and their flags. /proc/PID/smaps, which is where the
 * flags are told, walks all page tables for the numbers that stand beside them.
 */
#include "bpf/kernel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
};

struct bpf_iter__task_vma {
	struct task_struct *task;
	struct vm_area_struct *vma;
};

#pragma clang attribute pop

__u64 sum, n;

static __u64 mix(__u64 before, __u64 value)
{
	before = (before ^ value) * 0x9e3779b97f4a7c15ull;
	return before ^ before >> 29;
}

SEC("iter/task_vma")
int sum_vmas(struct bpf_iter__task_vma *context)
{
	struct vm_area_struct *vma = context->vma;
	if (!vma)
		return 0;
	sum = mix(mix(mix(sum, BPF_CORE_READ(vma, vm_start)), BPF_CORE_READ(vma, vm_end)), BPF_CORE_READ(vma, vm_flags));
	n++;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
