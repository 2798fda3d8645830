/*
 * touch.bpf.c - counts which parts of which files a tree of processes reads or maps.
 *
 * Where the page cache has them (Linux 6.13), its own tracepoints tell every read and every fault, hit or
 * miss. Before that there are only those of pages that come in or are promoted; the loader chooses.
 *
 * It has to be cheap. A CPU gathers what it sees in one range before it looks into the table of ranges, and has a
 * budget: a million reads a second would be slowed by a tenth, were each of them looked at. Even a program that
 * does nothing costs 30 ns a call; so who keeps the watch is told when a budget is spent, and takes the programs
 * off their tracepoints for a while (touch_keep.c).
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

/* A word in it: a budget is spent. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} spent SEC(".maps");

__u64 watched[TOUCH_PIDS / 64];
const volatile __u32 refill = 1; /* of the budget, per tick of the kernel's clock */

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

/* --- what it may cost ------------------------------------------------------------------- */

static void tell(void)
{
	__u32 word = 1;
	bpf_ringbuf_output(&spent, &word, sizeof(word), BPF_RB_FORCE_WAKEUP);
}

static void spend(struct touch_gather *gather, __u32 cost)
{
	gather->spent += cost;
	if (gather->spent >= TOUCH_BUDGET)
		tell();
}

static bool can_afford(struct touch_gather *gather)
{
	__u64 now = bpf_jiffies64();
	if (gather->jiffy != now) {
		__u64 back = (now - gather->jiffy) * refill;
		gather->spent = gather->spent > back ? gather->spent - back : 0;
		gather->jiffy = now;
	}
	return gather->spent < TOUCH_BUDGET;
}

/* --- one event -------------------------------------------------------------------------- */

#define PAGES_PER_MIB 256u
#define PAGES_PER_BLOCK 4u

static void begin_range(struct touch_gather *gather, struct inode *inode, __u64 mib)
{
	struct touch_key key = { .file = { inode->i_ino, inode->i_sb->s_dev, inode->i_generation }, .mib = mib };
	spend(gather, TOUCH_CHANGE - 1);
	if (gather->range.count)
		flush(gather);
	name_file(&key.file, inode);
	gather->key = key;
	gather->inode = (__u64)inode;
	gather->range = (struct touch_range){ .count = 1, .second = bpf_ktime_get_ns() / 1000000000 };
}

/* Of one MiB, from page `first` to page `last` of the file. */
static void touch(struct touch_gather *gather, struct inode *inode, __u64 first, __u64 last)
{
	__u64 mib = first / PAGES_PER_MIB;
	__u64 low = ~0ull << (first % PAGES_PER_MIB / PAGES_PER_BLOCK);
	__u64 high = ~0ull >> (63 - last % PAGES_PER_MIB / PAGES_PER_BLOCK);
	if (gather->range.count == 0 || gather->inode != (__u64)inode || gather->key.mib != mib ||
	    gather->key.file.ino != inode->i_ino)
		begin_range(gather, inode, mib);
	else if (first != gather->next && first + 1 != gather->next)
		gather->range.count++;
	gather->range.blocks |= low & high;
	gather->next = last + 1;
}

#define LONGEST 64 /* MiB that one event may span */

struct span {
	struct address_space *mapping;
	__u64 first, last;
};

static long touch_mib(__u32 i, struct span *span)
{
	__u64 end = span->first | (PAGES_PER_MIB - 1);
	__u64 last = end < span->last ? end : span->last;
	/* The gather is looked up again: the verifier knows none through a span. */
	__u32 zero = 0;
	struct touch_gather *gather = bpf_map_lookup_elem(&gathers, &zero);
	if (gather)
		touch(gather, span->mapping->host, span->first, last);
	span->first = last + 1;
	return last == span->last;
}

static int touch_pages(struct address_space *mapping, __u64 first, __u64 last)
{
	__u32 zero = 0;
	struct touch_gather *gather = bpf_map_lookup_elem(&gathers, &zero);
	if (!gather || !can_afford(gather))
		return 0;
	/* Whoever is not watched is slowed by us, too. */
	spend(gather, 1);
	if (!is_watched(bpf_get_current_pid_tgid() >> 32))
		return 0;
	struct inode *inode = mapping->host;
	if (!inode || last < first)
		return 0;
	if (first / PAGES_PER_MIB == last / PAGES_PER_MIB) {
		touch(gather, inode, first, last);
		return 0;
	}
	struct span span = { mapping, first, last };
	bpf_loop(LONGEST, touch_mib, &span, 0);
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
