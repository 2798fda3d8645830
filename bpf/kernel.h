/*
 * kernel.h - the few kernel types that the BPF programs look into.
 *
 * Only the members that are read stand here; libbpf finds where the running kernel has them
 * (CO-RE, https://docs.kernel.org/bpf/libbpf/libbpf_overview.html). A name ending in ___x is another
 * shape of the same type: the kernel change that made it stands beside it.
 */
#ifndef BPF_KERNEL_H
#define BPF_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define NULL ((void *)0)
#define bool _Bool
#define true 1
#define false 0

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* --- the page cache: include/linux/xarray.h, lib/xarray.c ---------------------- */

#define XA_CHUNK_SHIFT 6 /* 4 with CONFIG_BASE_SMALL, where these programs are not used */
#define XA_CHUNK (1u << XA_CHUNK_SHIFT)

struct xarray {
	void *xa_head;
};

struct xa_node {
	unsigned char shift;
	void *slots[XA_CHUNK];
};

/* Linux 6.18 put the flags of a folio into a struct of their own. */
typedef struct {
	unsigned long f;
} memdesc_flags_t;

struct folio {
	memdesc_flags_t flags;
	struct address_space *mapping;
	unsigned long index;
};

struct folio___before_6_18 {
	unsigned long flags;
};

/* Their values differ from kernel to kernel; these are never used. */
enum pageflags {
	PG_referenced,
	PG_uptodate,
	PG_active,
	PG_workingset,
};

struct address_space {
	struct inode *host;
	struct xarray i_pages;
};

/* --- files: include/linux/fs.h, include/linux/dcache.h ------------------------------ */

struct file {
	struct address_space *f_mapping;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct inode {
	unsigned long i_ino;
	__u32 i_generation;
	struct super_block *i_sb;
	struct hlist_head i_dentry;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	union {
		struct hlist_node d_alias; /* in inode.i_dentry */
	} d_u;
};

/* --- tasks -------------------------------------------------------------------------- */

struct upid {
	int nr;
};

struct pid {
	unsigned level;
	struct upid numbers[1];
};

struct task_struct {
	int pid;
	int tgid;
	struct pid *thread_pid;
};

/* --- iterators: kernel/bpf/task_iter.c --------------------------------------------- */

struct bpf_iter__task {
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

/* A task as its own PID namespace has it, which is ours. */
static inline __u32 number_of(void *task)
{
	struct pid *pid = BPF_CORE_READ((struct task_struct *)task, thread_pid);
	unsigned level = BPF_CORE_READ(pid, level);
	int number = 0;
	/* struct upid is larger than what is read of it here. */
	bpf_probe_read_kernel(&number, sizeof(number),
			      (char *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid));
	return number;
}

#endif
