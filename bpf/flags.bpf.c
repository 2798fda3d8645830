/*
 * flags.bpf.c - the flags of each mapping of a process, and whether others may have its pages. /proc/PID/smaps tells both,
 * and walks all page tables for the numbers that stand beside them.
 */
#include "bpf/kernel.h"
#include "bpf/flags_shape.h"

/* include/linux/mm.h */
#define VM_SHARED 0x8ul
#define VM_MERGEABLE 0x80000000ul
#define TMPFS_MAGIC 0x01021994ul /* linux/magic.h */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* mm/rmap.c: fork(2) gives each mapping of the child one of its own, below that of the same mapping of the parent. The root
 * counts itself among its children. (So since Linux 6.0.) */
struct anon_vma {
	struct anon_vma *root;
	unsigned long num_children;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	struct anon_vma *anon_vma;
	struct file *vm_file;
};

struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

#pragma clang attribute pop

/* A page that is mapped elsewhere, too, came by a fork, to a child that is still there or from a parent, or was merged. What
 * is of a child's counts as shared though the parent be gone: its others are not looked through. */
static bool may_be_shared(struct vm_area_struct *vma)
{
	struct anon_vma *anon = vma->anon_vma;
	if (!anon || vma->vm_flags & VM_SHARED)
		return false;
	return vma->vm_flags & VM_MERGEABLE || anon->root != anon || anon->num_children > 1;
}

SEC("iter/task_vma")
int tell_flags(struct bpf_iter__task_vma *context)
{
	struct vm_area_struct *vma = context->vma;
	struct flags_mapping mapping = { 0 };
	if (!vma)
		return 0;
	struct file *file = vma->vm_file;
	mapping.start = vma->vm_start;
	mapping.end = vma->vm_end;
	mapping.flags = vma->vm_flags;
	mapping.traits = may_be_shared(vma) ? FLAGS_SHARED : 0;
	if (file && file->f_mapping->host->i_sb->s_magic == TMPFS_MAGIC)
		mapping.traits |= FLAGS_TMPFS;
	bpf_seq_write(context->meta->seq, &mapping, sizeof(mapping));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
