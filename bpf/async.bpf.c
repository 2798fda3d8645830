/*
 * async.bpf.c - what the kernel knows of asynchronous I/O and tells by no call: whether requests are
 * under way, and how a ring of io_uring was set up.
 *
 * Iterators over one process or over the loader's own descriptors. The targets stand still, so that
 * what is read in pieces fits together.
 */
#include "bpf/kernel.h"

#include "bpf/async_shape.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* --- fs/aio.c ------------------------------------------------------------------ */

struct atomic { /* atomic_t, which has no name of its own */
	int counter;
};

struct kioctx_cpu {
	unsigned reqs_available;
};

struct kioctx {
	unsigned long user_id;
	struct kioctx_cpu *cpu;
	unsigned nr_events;
	struct atomic reqs_available;
	unsigned completed_events;
};

struct kioctx_table {
	unsigned nr;
	struct kioctx *table[1];
};

struct mm_struct {
	struct kioctx_table *ioctx_table;
};

/* --- io_uring: include/linux/io_uring_types.h, io_uring/ ---------------------------- */

struct percpu_counter {
	long long count;
	int *counters;
};

struct io_ring_ctx;

struct io_uring_task {
	int cached_refs;
	struct file *registered_rings[ASYNC_RINGS];
	struct percpu_counter inflight;
};

/* kernel/bpf/arraymap.c */
struct bpf_array {
	void *pptrs[1];
};

struct task_struct___async {
	struct task_struct___async *group_leader;
	struct mm_struct *mm;
	struct io_uring_task *io_uring;
};

struct file___async {
	void *private_data;
};

struct eventfd_ctx {
	int id;
};

struct io_ev_fd {
	struct eventfd_ctx *cq_ev_fd;
	unsigned eventfd_async : 1;
};

struct io_sq_data {
	int sq_cpu;
	struct task_struct *thread;
};

struct io_mapped_ubuf {
	unsigned long long ubuf;
	unsigned len;
	bool is_kbuf;
};

/* Before Linux 6.13. */
struct io_mapped_ubuf___before_6_13 {
	unsigned long long ubuf_end;
};

struct io_rsrc_node {
	unsigned char type;
	unsigned long long tag;
	unsigned long file_ptr;
	struct io_mapped_ubuf *buf;
};

struct io_rsrc_data {
	unsigned nr;
	struct io_rsrc_node **nodes;
};

struct io_file_table {
	struct io_rsrc_data data;
};

struct io_ring_ctx {
	unsigned flags;
	unsigned restricted : 1;
	struct task_struct *submitter_task;
	unsigned sq_thread_idle;
	unsigned cached_sq_head;
	unsigned sq_entries;
	unsigned cached_cq_tail;
	unsigned cq_entries;
	struct io_file_table file_table;
	struct io_rsrc_data buf_table;
	struct io_ev_fd *io_ev_fd;
	struct io_sq_data *sq_data;
	struct xarray io_bl_xa;
	struct xarray personalities;
};

/* Linux 6.13 made one table of what were arrays (node, data): io_uring/rsrc.h. */
struct io_fixed_file {
	unsigned long file_ptr;
};

struct io_file_table___before_6_13 {
	struct io_fixed_file *files;
};

struct io_ring_ctx___before_6_13 {
	struct io_file_table___before_6_13 file_table;
	unsigned nr_user_files;
	unsigned nr_user_bufs;
	struct io_mapped_ubuf **user_bufs;
	void *io_bl; /* buffer groups of small numbers, until Linux 6.8 */
};

#pragma clang attribute pop

struct async_order order;
struct async_context contexts[ASYNC_CONTEXTS];
struct async_thread threads[ASYNC_THREADS];
struct async_ring ring;
__u64 files[ASYNC_TABLE], file_tags[ASYNC_TABLE];
struct async_buffer buffers[ASYNC_TABLE];
struct async_descriptor descriptors[ASYNC_DESCRIPTORS];

/* Where a CPU's part of what a __percpu pointer names lies: the symbol that tells is not to be had
 * on kernels without CONFIG_KALLSYMS_ALL. Of this map we have both, the pointer and the parts. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} anchor SEC(".maps");

/* Through memory, because the verifier lets nobody count with addresses that it knows. */
volatile __u64 anchor_map, anchor_part;

static void *of_cpu(const void *pointer, __u32 cpu)
{
	__u32 first = 0;
	unsigned long named = 0;
	anchor_map = (__u64)&anchor;
	anchor_part = (__u64)bpf_map_lookup_percpu_elem(&anchor, &first, cpu);
	bpf_probe_read_kernel(
		&named, sizeof(named),
		(void *)(anchor_map + bpf_core_field_offset(struct bpf_array, pptrs)));
	return (void *)((unsigned long)pointer + (anchor_part - named));
}

static __u32 owner_of(struct io_sq_data *poller)
{
	struct task_struct___async *thread = (void *)BPF_CORE_READ(poller, thread);
	return thread ? number_of(BPF_CORE_READ(thread, group_leader)) : 0;
}

/* --- contexts ------------------------------------------------------------------- */

struct sum {
	void *pointer; /* to a counter of which each CPU has one */
	__s64 value;
};

static long add_cpu(__u32 cpu, void *context)
{
	struct sum *sum = context;
	__s32 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), of_cpu(sum->pointer, cpu));
	sum->value += value;
	return 0;
}

static __s64 sum_cpus(void *pointer)
{
	struct sum sum = { pointer, 0 };
	bpf_loop(order.cpus, add_cpu, &sum, 0);
	return sum.value;
}

/* get_reqs_available() and its neighbours: a request takes a slot, which comes back when its event was
 * read and somebody looks. */
static long tell_context(__u32 i, void *pointer)
{
	struct kioctx *context = NULL;
	struct kioctx_table *table = *(struct kioctx_table **)pointer;
	bpf_probe_read_kernel(&context, sizeof(context), (void **)&table->table + i);
	__u32 n = order.n;
	if (!context || n >= ASYNC_CONTEXTS)
		return 0;
	struct async_context *told = &contexts[n & (ASYNC_CONTEXTS - 1)];
	told->user_id = BPF_CORE_READ(context, user_id);
	told->nr_events = BPF_CORE_READ(context, nr_events);
	int shared = 0;
	bpf_core_read(&shared, sizeof(shared), &context->reqs_available);
	__s64 free = shared + sum_cpus(BPF_CORE_READ(context, cpu)) +
		     BPF_CORE_READ(context, completed_events);
	told->in_flight = told->nr_events - 1 - free;
	order.n = n + 1;
	return 0;
}

SEC("iter/task")
int tell_contexts(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	if (!task || task->pid != task->tgid)
		return 0;
	struct task_struct___async *of = (void *)task;
	struct kioctx_table *table = BPF_CORE_READ(of, mm, ioctx_table);
	if (table)
		bpf_loop(BPF_CORE_READ(table, nr), tell_context, &table, 0);
	return 0;
}

/* --- threads ------------------------------------------------------------------------ */

static void *ring_of(struct file *file)
{
	return file ? BPF_CORE_READ((struct file___async *)file, private_data) : NULL;
}

SEC("iter/task")
int tell_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 n = order.n;
	if (!task || n >= ASYNC_THREADS)
		return 0;
	struct io_uring_task *uring = BPF_CORE_READ((struct task_struct___async *)task, io_uring);
	if (!uring)
		return 0;
	struct async_thread *told = &threads[n & (ASYNC_THREADS - 1)];
	told->tid = number_of(task);
	told->in_flight = BPF_CORE_READ(uring, inflight.count) +
			  sum_cpus(BPF_CORE_READ(uring, inflight.counters)) -
			  BPF_CORE_READ(uring, cached_refs);
	for (int i = 0; i < (int)ASYNC_RINGS; i++) {
		struct file *file = NULL;
		bpf_core_read(&file, sizeof(file), &uring->registered_rings[i]);
		told->rings[i] = (__u64)ring_of(file);
	}
	order.n = n + 1;
	return 0;
}

/* --- a ring --------------------------------------------------------------------------- */

#define FILE_FLAGS 7ul /* kept in the low bits of the pointer: io_uring/filetable.h */
#define IORING_RSRC_FILE 0
#define IORING_RSRC_BUFFER 1

static long tell_file(__u32 i, void *context)
{
	struct io_rsrc_node **nodes = *(struct io_rsrc_node ***)context, *node = NULL;
	bpf_probe_read_kernel(&node, sizeof(node), &nodes[i]);
	if (i >= ASYNC_TABLE)
		return 1;
	files[i & (ASYNC_TABLE - 1)] = node ? BPF_CORE_READ(node, file_ptr) & ~FILE_FLAGS : 0;
	file_tags[i & (ASYNC_TABLE - 1)] = node ? BPF_CORE_READ(node, tag) : 0;
	return 0;
}

static long tell_old_file(__u32 i, void *context)
{
	struct io_fixed_file *table = *(struct io_fixed_file **)context;
	unsigned long file = 0;
	if (i >= ASYNC_TABLE)
		return 1;
	bpf_probe_read_kernel(&file, sizeof(file), (void *)&((unsigned long *)table)[i]);
	files[i & (ASYNC_TABLE - 1)] = file & ~FILE_FLAGS;
	file_tags[i & (ASYNC_TABLE - 1)] = 0;
	return 0;
}

static void tell_buffer_at(__u32 i, struct io_mapped_ubuf *buffer, __u64 tag)
{
	struct async_buffer *told = &buffers[i & (ASYNC_TABLE - 1)];
	*told = (struct async_buffer){ .tag = tag };
	if (!buffer)
		return;
	told->address = BPF_CORE_READ(buffer, ubuf);
	if (bpf_core_field_exists(buffer->len))
		told->length = BPF_CORE_READ(buffer, len);
	else
		told->length =
			BPF_CORE_READ((struct io_mapped_ubuf___before_6_13 *)buffer, ubuf_end) -
			told->address;
	if (bpf_core_field_exists(buffer->is_kbuf) && BPF_CORE_READ(buffer, is_kbuf))
		ring.odd = 1;
}

static long tell_buffer(__u32 i, void *context)
{
	struct io_rsrc_node **nodes = *(struct io_rsrc_node ***)context, *node = NULL;
	if (i >= ASYNC_TABLE)
		return 1;
	bpf_probe_read_kernel(&node, sizeof(node), &nodes[i]);
	tell_buffer_at(i, node ? BPF_CORE_READ(node, buf) : NULL,
		       node ? BPF_CORE_READ(node, tag) : 0);
	return 0;
}

static long tell_old_buffer(__u32 i, void *context)
{
	struct io_mapped_ubuf **table = *(struct io_mapped_ubuf ***)context, *buffer = NULL;
	if (i >= ASYNC_TABLE)
		return 1;
	bpf_probe_read_kernel(&buffer, sizeof(buffer), &table[i]);
	tell_buffer_at(i, buffer, 0);
	return 0;
}

static void tell_resources(struct io_ring_ctx *of)
{
	void *table;
	if (bpf_core_field_exists(of->buf_table)) {
		ring.n_files = BPF_CORE_READ(of, file_table.data.nr);
		ring.n_buffers = BPF_CORE_READ(of, buf_table.nr);
		table = BPF_CORE_READ(of, file_table.data.nodes);
		bpf_loop(ring.n_files, tell_file, &table, 0);
		table = BPF_CORE_READ(of, buf_table.nodes);
		bpf_loop(ring.n_buffers, tell_buffer, &table, 0);
		return;
	}
	struct io_ring_ctx___before_6_13 *old = (void *)of;
	ring.n_files = BPF_CORE_READ(old, nr_user_files);
	ring.n_buffers = BPF_CORE_READ(old, nr_user_bufs);
	table = BPF_CORE_READ(old, file_table.files);
	bpf_loop(ring.n_files, tell_old_file, &table, 0);
	table = BPF_CORE_READ(old, user_bufs);
	bpf_loop(ring.n_buffers, tell_old_buffer, &table, 0);
	if (bpf_core_field_exists(old->io_bl) && BPF_CORE_READ(old, io_bl))
		ring.buffer_lists = 1;
}

SEC("iter/task_file")
int tell_ring(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	if (!file || ctx->fd != order.fd)
		return 0;
	struct io_ring_ctx *of = ring_of(file);
	struct io_ev_fd *event = BPF_CORE_READ(of, io_ev_fd);
	struct io_sq_data *poller = BPF_CORE_READ(of, sq_data);
	struct task_struct *submitter = BPF_CORE_READ(of, submitter_task);
	ring = (struct async_ring){
		.identity = (__u64)of,
		.found = 1,
		.flags = BPF_CORE_READ(of, flags),
		.sq_entries = BPF_CORE_READ(of, sq_entries),
		.cq_entries = BPF_CORE_READ(of, cq_entries),
		.sq_head = BPF_CORE_READ(of, cached_sq_head),
		.cq_tail = BPF_CORE_READ(of, cached_cq_tail),
		.sq_idle = BPF_CORE_READ(of, sq_thread_idle),
		.submitter = submitter ? number_of(submitter) : 0,
		.sq_owner = poller ? owner_of(poller) : 0,
		.sq_cpu = poller ? BPF_CORE_READ(poller, sq_cpu) : -1,
		.eventfd = event ? BPF_CORE_READ(event, cq_ev_fd, id) : -1,
		.eventfd_async = event ? BPF_CORE_READ_BITFIELD_PROBED(event, eventfd_async) : 0,
		.restricted = BPF_CORE_READ_BITFIELD_PROBED(of, restricted),
		.personalities = BPF_CORE_READ(of, personalities.xa_head) != NULL,
		.buffer_lists = BPF_CORE_READ(of, io_bl_xa.xa_head) != NULL,
	};
	tell_resources(of);
	return 0;
}

/* --- whose descriptors those files are ---------------------------------------------------- */

SEC("iter/task_file")
int tell_descriptors(struct bpf_iter__task_file *ctx)
{
	__u32 n = order.n;
	if (!ctx->file || n >= ASYNC_DESCRIPTORS)
		return 0;
	descriptors[n & (ASYNC_DESCRIPTORS - 1)] =
		(struct async_descriptor){ .file = (__u64)ctx->file, .fd = ctx->fd };
	order.n = n + 1;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
