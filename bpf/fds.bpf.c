/*
 * fds.bpf.c - what /proc/PID/fdinfo/N says of each descriptor of a process (seq_show(), fs/proc/fd.c). Most kinds of files
 * add nothing to position and flags: they have no show_fdinfo(), and where nobody has ever locked a file there is no
 * list of locks.
 */
#include "bpf/kernel.h"
#include "bpf/fds_shape.h"

/* linux/stat.h, linux/fcntl.h */
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define O_CLOEXEC 02000000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file_operations {
	void *show_fdinfo;
};

struct proto_ops {
	void *show_fdinfo; /* Linux 5.18 */
};

struct socket {
	const struct proto_ops *ops;
};

struct inode___mode {
	unsigned short i_mode;
	struct file_lock_context *i_flctx;
};

struct file___shown {
	const struct file_operations *f_op;
	void *private_data;
	unsigned f_flags;
	long long f_pos;
	struct inode___mode *f_inode;
};

struct fdtable {
	unsigned long *close_on_exec;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct___files {
	struct files_struct *files;
};

#pragma clang attribute pop

__u32 n;
struct fds_told told[FDS_MOST];

static bool is_plain(struct file___shown *file)
{
	struct inode___mode *inode = BPF_CORE_READ(file, f_inode);
	if (BPF_CORE_READ(inode, i_flctx))
		return false;
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return !BPF_CORE_READ(file, f_op, show_fdinfo);
	struct socket *socket = BPF_CORE_READ(file, private_data); /* NULL: a name in a file system, opened with O_PATH */
	return socket && !BPF_CORE_READ(socket, ops, show_fdinfo);
}

static bool closes_on_exec(void *of, __u32 fd)
{
	struct task_struct___files *task = of;
	unsigned long *words = BPF_CORE_READ(task, files, fdt, close_on_exec), word = 0;
	bpf_probe_read_kernel(&word, sizeof(word), words + fd / 64);
	return word >> fd % 64 & 1;
}

SEC("iter/task_file")
int tell_fds(struct bpf_iter__task_file *context)
{
	struct file___shown *file = (void *)context->file;
	struct task_struct *task = context->task;
	if (!file || !task)
		return 0;
	__u32 at = n++, fd = context->fd;
	if (at >= FDS_MOST)
		return 0;
	told[at & (FDS_MOST - 1)] = (struct fds_told){
		.fd = fd,
		.pos = BPF_CORE_READ(file, f_pos),
		.flags = BPF_CORE_READ(file, f_flags) | (closes_on_exec(task, fd) ? O_CLOEXEC : 0),
		.plain = is_plain(file),
	};
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
