/*
 * touch.bpf.c - counts which parts of which files a tree of processes reads or maps.
 *
 * Where the page cache has them (Linux 6.13), its own tracepoints tell every read and every fault, hit or
 * miss. Before that there are only those of pages that come in or are promoted; the loader chooses.
 *
 * It has to be cheap for those who are not watched, a bit in a table of process numbers, and for
 * those who are: a CPU gathers what it sees in one range before it looks into the table of ranges.
 * A task that is preempted here may mix its range with another's: it is heat, a guess.
 */
#include "bpf/kernel.h"

#include "bpf/touch_shape.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TOUCH_RANGES);
	__type(key, struct touch_key);
	__type(value, struct touch_range);
} ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TOUCH_FILES);
	__type(key, struct touch_file);
	__type(value, struct touch_name);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct touch_gather);
} gathers SEC(".maps");

/* A name is built here, too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct touch_name);
} scratch SEC(".maps");

__u64 watched[TOUCH_PIDS / 64];

/* --- who ------------------------------------------------------------------------------ */

static __u64 *word_of(__u32 tgid)
{
	return &watched[tgid / 64 % (TOUCH_PIDS / 64)];
}

static __u64 bit_of(__u32 tgid)
{
	return 1ull << tgid % 64;
}

static bool is_watched(__u32 tgid)
{
	return *word_of(tgid) & bit_of(tgid);
}

/* The loader may live in a PID namespace and not know these numbers: it names a task by running an iterator
 * over just that one. */
SEC("iter/task")
int watch_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	if (task)
		__sync_fetch_and_or(word_of(task->tgid), bit_of(task->tgid));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(note_fork, struct task_struct *parent, struct task_struct *child)
{
	if (is_watched(parent->tgid))
		__sync_fetch_and_or(word_of(child->tgid), bit_of(child->tgid));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(note_exit, struct task_struct *task)
{
	if (task->pid == task->tgid && is_watched(task->tgid))
		__sync_fetch_and_and(word_of(task->tgid), ~bit_of(task->tgid));
	return 0;
}

/* --- names ------------------------------------------------------------------------------ */

#define DEEPEST 32 /* directories */

static void name_file(struct touch_file *key, struct inode *inode)
{
	__u32 zero = 0, at = 0;
	if (bpf_map_lookup_elem(&names, key))
		return;
	struct touch_name *name = bpf_map_lookup_elem(&scratch, &zero);
	struct hlist_node *first = BPF_CORE_READ(inode, i_dentry.first);
	if (!name || !first)
		return;
	struct dentry *dentry = (void *)first - bpf_core_field_offset(struct dentry, d_u.d_alias);
	for (int i = 0; i < DEEPEST; i++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			break;
		if (at > TOUCH_PATH - 256)
			return; /* too long to be told */
		long length = bpf_probe_read_kernel_str(name->names + at, 256, BPF_CORE_READ(dentry, d_name.name));
		if (length <= 0)
			return;
		at += length & 0x1ff;
		dentry = parent;
	}
	name->length = at;
	bpf_map_update_elem(&names, key, name, BPF_NOEXIST);
}

/* --- what -------------------------------------------------------------------------------- */

static void flush(struct touch_gather *gather)
{
	struct touch_range *range = bpf_map_lookup_elem(&ranges, &gather->key);
	if (!range) {
		bpf_map_update_elem(&ranges, &gather->key, &gather->range, BPF_NOEXIST);
		return;
	}
	range->blocks |= gather->range.blocks;
	range->count += gather->range.count;
	range->second = gather->range.second;
}

static bool same(const struct touch_key *a, const struct touch_key *b)
{
	return a->mib == b->mib && a->file.ino == b->file.ino && a->file.dev == b->file.dev &&
	       a->file.generation == b->file.generation;
}

#define PAGES_PER_MIB 256u
#define PAGES_PER_BLOCK 4u

/* One MiB, from page `first` to page `last` of the file. */
static void touch(struct inode *inode, struct touch_key *key, __u64 first, __u64 last)
{
	__u32 zero = 0;
	struct touch_gather *gather = bpf_map_lookup_elem(&gathers, &zero);
	if (!gather)
		return;
	__u64 low = ~0ull << (first % PAGES_PER_MIB / PAGES_PER_BLOCK);
	__u64 high = ~0ull >> (63 - last % PAGES_PER_MIB / PAGES_PER_BLOCK);
	if (gather->range.count == 0 || !same(&gather->key, key)) {
		gather->changes++;
		if (gather->range.count)
			flush(gather);
		name_file(&key->file, inode);
		gather->key = *key;
		gather->range = (struct touch_range){ .second = bpf_ktime_get_ns() / 1000000000 };
	}
	gather->range.blocks |= low & high;
	gather->range.count++;
}

#define LONGEST 64 /* MiB that one event may span */

/* Whoever jumps about in large files changes the range with every read. Some thousand samples a second tell as
 * much about what is hot as all of them, at a fraction of a per cent of the time. */
static bool patient(void)
{
	__u32 zero = 0;
	struct touch_gather *gather = bpf_map_lookup_elem(&gathers, &zero);
	__u64 now = bpf_jiffies64();
	if (!gather)
		return false;
	if (gather->jiffy != now) {
		gather->jiffy = now;
		gather->changes = 0;
	}
	return gather->changes < TOUCH_CHANGES;
}

static int touch_pages(struct address_space *mapping, __u64 first, __u64 last)
{
	if (!is_watched(bpf_get_current_pid_tgid() >> 32) || !patient())
		return 0;
	struct inode *inode = mapping->host;
	if (!inode || last < first)
		return 0;
	struct touch_key key = { .file = { inode->i_ino, inode->i_sb->s_dev, inode->i_generation } };
	for (int i = 0; i < LONGEST; i++) {
		__u64 end = first | (PAGES_PER_MIB - 1);
		key.mib = first / PAGES_PER_MIB;
		touch(inode, &key, first, end < last ? end : last);
		if (end >= last)
			break;
		first = end + 1;
	}
	return 0;
}

SEC("tp_btf/mm_filemap_get_pages")
int BPF_PROG(note_read, struct address_space *mapping, unsigned long first, unsigned long last)
{
	return touch_pages(mapping, first, last);
}

SEC("tp_btf/mm_filemap_map_pages")
int BPF_PROG(note_map, struct address_space *mapping, unsigned long first, unsigned long last)
{
	return touch_pages(mapping, first, last);
}

SEC("tp_btf/mm_filemap_fault")
int BPF_PROG(note_fault, struct address_space *mapping, unsigned long page)
{
	return touch_pages(mapping, page, page);
}

/* --- kernels without these ------------------------------------------------------------------ */

static int touch_folio(struct folio *folio)
{
	struct address_space *mapping = folio->mapping;
	return mapping ? touch_pages(mapping, folio->index, folio->index) : 0;
}

SEC("?tp_btf/mm_filemap_add_to_page_cache")
int BPF_PROG(note_added, struct folio *folio)
{
	return touch_folio(folio);
}

SEC("?tp_btf/mm_lru_activate")
int BPF_PROG(note_activated, struct folio *folio)
{
	return touch_folio(folio);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
