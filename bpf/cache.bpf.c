/*
 * cache.bpf.c - walks the page cache of files that the loader has open.
 *
 * It is an iterator over the loader's own descriptors: whatever leads to a file (a descriptor, a mapping,
 * a path seen long ago) is opened there first. Iterators need neither kprobes nor fentry, which
 * lockdown refuses, and run under RCU, so that nodes of the tree do not go away under the walk. What
 * else happens to the tree meanwhile happens: a page may be missed or told of twice, memory that is no
 * folio any more may be looked at. Heat is a guess; nothing but speed depends on it.
 *
 * Form of the tree: lib/xarray.c, Documentation/core-api/xarray.rst. A folio of many pages is one entry in
 * the slot of its first page, at the level whose slots are as large or smaller, followed by siblings.
 */
#include "bpf/kernel.h"

#include "bpf/cache_shape.h"

struct cache_order order;
__u16 file_of[CACHE_DESCRIPTORS]; /* by descriptor: 1 + place in the loader's list; 0: not asked for */
struct cache_run runs[CACHE_RUNS];

/* Of the walk that is going on; there is one reader at a time. Not on the stack: the verifier would
 * follow every value that it may take there. */
static struct {
	void *head;
	__u64 page;
	struct cache_run run; /* being gathered; heat 0: none */
	__u32 shift;	      /* of the node being looked at: a slot stands for 1 << shift pages */
	__u32 slot;
	__u16 heat; /* of the last entry, which its siblings share */
	__u16 file;
	bool end;
	void *slots[XA_CHUNK]; /* of that node */
} walk;

/* --- entries: include/linux/xarray.h ------------------------------------------------ */

static bool is_value(void *entry)
{
	return (unsigned long)entry & 1;
}

static bool is_internal(void *entry)
{
	return ((unsigned long)entry & 3) == 2;
}

static bool is_node(void *entry)
{
	return is_internal(entry) && (unsigned long)entry > 4096;
}

static bool is_sibling(void *entry)
{
	return is_internal(entry) && (unsigned long)entry < (XA_CHUNK - 1) << 2;
}

static struct xa_node *to_node(void *entry)
{
	return (struct xa_node *)((unsigned long)entry - 2);
}

/* --- heat ------------------------------------------------------------------------------ */

static unsigned long folio_flags(void *folio)
{
	if (bpf_core_type_exists(memdesc_flags_t))
		return BPF_CORE_READ((struct folio *)folio, flags.f);
	return BPF_CORE_READ((struct folio___before_6_18 *)folio, flags);
}

#define FLAG(name) (1ul << bpf_core_enum_value(enum pageflags, name))

static __u16 heat_of(void *entry)
{
	if (!entry || is_value(entry) || is_internal(entry))
		return 0;
	unsigned long flags = folio_flags(entry);
	if (!(flags & FLAG(PG_uptodate)))
		return 0;
	if (flags & (FLAG(PG_active) | FLAG(PG_workingset)))
		return CACHE_HOT;
	return flags & FLAG(PG_referenced) ? CACHE_WARM : CACHE_COLD;
}

/* --- runs ------------------------------------------------------------------------------- */

/* A node may bring as many runs as it has slots, and one that was begun before. */
static bool exhausted(void)
{
	return order.nodes >= CACHE_NODES || order.n_runs >= CACHE_RUNS - XA_CHUNK - 1;
}

static void put_run(void)
{
	__u32 n = order.n_runs;
	if (walk.run.heat && n < CACHE_RUNS) {
		runs[n & (CACHE_RUNS - 1)] = walk.run;
		order.n_runs = n + 1;
	}
	walk.run.heat = 0;
}

static void add_pages(__u64 page, __u32 pages, __u16 heat)
{
	struct cache_run *run = &walk.run;
	if (run->heat == heat && run->page + run->pages == page && run->pages < 1u << 30) {
		run->pages += pages;
		return;
	}
	put_run();
	*run = (struct cache_run){ .page = page, .pages = pages, .file = walk.file, .heat = heat };
}

/* --- the walk ------------------------------------------------------------------------------ */

static long visit_slot(__u32 i, void *unused)
{
	__u32 slot = walk.slot + i;
	if (slot >= XA_CHUNK)
		return 1;
	void *entry = walk.slots[slot & (XA_CHUNK - 1)];
	if (is_node(entry))
		return 1;
	__u32 pages = 1u << (walk.shift & 31);
	if (!is_sibling(entry))
		walk.heat = heat_of(entry);
	if (walk.heat)
		add_pages(walk.page, pages, walk.heat);
	walk.page += pages;
	return 0;
}

#define LEVELS 11 /* 64 bits of index, 6 a level */

/* Down to the lowest node on the way to walk.page, and through its slots. */
static long visit_node(__u32 i, void *unused)
{
	void *entry = walk.head;
	struct xa_node *node = NULL;
	__u32 shift = 0;
	for (int level = 0; level < LEVELS && is_node(entry); level++) {
		node = to_node(entry);
		shift = BPF_CORE_READ(node, shift) & 63;
		__u64 slot = walk.page >> shift;
		if (level == 0 && slot >= XA_CHUNK)
			break;
		walk.slot = slot & (XA_CHUNK - 1);
		if (shift == 0)
			break;
		void **in = node->slots;
		bpf_probe_read_kernel(&entry, sizeof(entry), in + (slot & (XA_CHUNK - 1)));
	}
	if (!node) { /* no entry, or a single one for page 0 */
		if (walk.page == 0)
			add_pages(0, 1, heat_of(entry));
		walk.end = true;
		return 1;
	}
	if (walk.page >> shift >> XA_CHUNK_SHIFT && node == to_node(walk.head)) {
		walk.end = true;
		return 1;
	}
	walk.shift = shift;
	walk.heat = 0;
	if (bpf_core_read(walk.slots, sizeof(walk.slots), &node->slots) < 0) {
		walk.end = true;
		return 1;
	}
	walk.page = walk.page >> shift << shift;
	bpf_loop(XA_CHUNK, visit_slot, NULL, 0);
	order.nodes++;
	return exhausted();
}

SEC("iter/task_file")
int read_cache(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	__u32 fd = ctx->fd;
	if (!file || fd < order.fd || fd >= CACHE_DESCRIPTORS || !file_of[fd] || exhausted())
		return 0;
	walk.head = BPF_CORE_READ(file, f_mapping, i_pages.xa_head);
	walk.page = fd == order.fd ? order.page : 0;
	walk.file = file_of[fd] - 1;
	walk.end = false;
	bpf_loop(CACHE_NODES, visit_node, NULL, 0);
	put_run();
	order.fd = walk.end ? fd + 1 : fd;
	order.page = walk.end ? 0 : walk.page;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
