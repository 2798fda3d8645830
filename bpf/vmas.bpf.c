/*
 * vmas.bpf.c - a sum over the mappings of a process: where they are, and their flags. /proc/PID/smaps, which is where the
 * flags are told, walks all page tables for the numbers that stand beside them. And which mappings of files have no
 * page of the process' own: those that never had an anon_vma, without which none can be (mm/memory.c,
 * vmf_anon_prepare()).
 *
 * And two numbers that the kernel counts up for each address space, by which one knows without looking that nothing has
 * changed. No mapping is made, changed or removed but with the lock of the address space held for writing, which counts
 * mm_lock_seq (vma_end_write_all(), include/linux/mmap_lock.h, from Linux 6.4 on). And of no page that was there may a
 * processor still have the translation when it has been taken away: who takes one away counts tlb_gen before he tells them
 * (inc_mm_tlb_gen(), arch/x86/include/asm/tlbflush.h).
 */
#include "bpf/kernel.h"
#include "bpf/vmas_shape.h"

/* include/linux/mm.h: a userfaultfd, or guard regions, may have left entries that are no page's. */
#define VM_UFFD_MISSING 0x200ul
#define VM_MAYBE_GUARD 0x800ul
#define VM_UFFD_WP 0x1000ul
/* linux/magic.h: of these a userfaultfd may be gone and its entries there. */
#define TMPFS_MAGIC 0x01021994ul
#define HUGETLBFS_MAGIC 0x958458f6ul

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	struct anon_vma *anon_vma;
	struct file *vm_file;
};

struct seqcount {
	unsigned sequence;
};

typedef struct {
	long counter;
} atomic64_t;

typedef struct {
	atomic64_t tlb_gen; /* x86 */
} mm_context_t;

struct mm_struct {
	mm_context_t context;
	struct seqcount mm_lock_seq; /* Linux 6.13 */
};

struct mm_struct___before_6_13 {
	int mm_lock_seq;
};

struct task_struct___mm {
	struct mm_struct *mm;
};

struct bpf_iter__task_vma {
	struct task_struct *task;
	struct vm_area_struct *vma;
};

#pragma clang attribute pop

__u64 sum, n;
__u32 n_bare;
struct vmas_range bare[VMAS_BARE];
struct vmas_counts counts;

static __u64 mix(__u64 before, __u64 value)
{
	before = (before ^ value) * 0x9e3779b97f4a7c15ull;
	return before ^ before >> 29;
}

static bool is_bare(struct vm_area_struct *vma)
{
	struct file *file = vma->vm_file;
	if (!file || vma->anon_vma ||
	    (vma->vm_flags & (VM_UFFD_MISSING | VM_UFFD_WP | VM_MAYBE_GUARD)))
		return false;
	unsigned long magic = file->f_mapping->host->i_sb->s_magic;
	return magic != TMPFS_MAGIC && magic != HUGETLBFS_MAGIC;
}

static void tell_bare(struct vm_area_struct *vma)
{
	__u64 start = vma->vm_start;
	__u32 at = n_bare;
	if (at && at <= VMAS_BARE && bare[at - 1].end == start) {
		bare[at - 1].end = vma->vm_end;
	} else if (at < VMAS_BARE) {
		bare[at].start = start;
		bare[at].end = vma->vm_end;
		n_bare = at + 1;
	}
}

SEC("iter/task_vma")
int sum_vmas(struct bpf_iter__task_vma *context)
{
	struct vm_area_struct *vma = context->vma;
	if (!vma)
		return 0;
	sum = mix(mix(mix(sum, vma->vm_start), vma->vm_end), vma->vm_flags);
	n++;
	if (is_bare(vma))
		tell_bare(vma);
	return 0;
}

/* Counted up where somebody holds the lock, and again where he lets go: what is odd says nothing. */
static __u64 locked(struct mm_struct *mm)
{
	struct mm_struct___before_6_13 *older = (void *)mm;
	if (bpf_core_field_exists(mm->mm_lock_seq.sequence))
		return BPF_CORE_READ(mm, mm_lock_seq.sequence) & 1 ? 0 : 1ull << 32 | BPF_CORE_READ(mm, mm_lock_seq.sequence);
	return bpf_core_field_exists(older->mm_lock_seq) ?
		1ull << 32 | (__u32)BPF_CORE_READ(older, mm_lock_seq) : 0;
}

SEC("iter/task")
int tell_counts(struct bpf_iter__task *context)
{
	struct task_struct___mm *task = (void *)context->task;
	struct mm_struct *mm = task ? BPF_CORE_READ(task, mm) : NULL;
	if (!mm)
		return 0;
	counts.space = (__u64)mm;
	counts.locked = locked(mm);
	if (bpf_core_field_exists(mm->context.tlb_gen))
		counts.taken_away = BPF_CORE_READ(mm, context.tlb_gen.counter);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
