/*
 * dump.h - what the parts of a dump share. The story itself is dump.c.
 *
 *	look.c        what can be had before the freeze
 *	collect.c     what must be had during it, calling on the following
 *	sharing.c     what processes share that is not shared as a rule
 *	kinship.c     sessions, process groups and their leaders
 *	smaps.c       what madvise(2) and others have said about mappings
 *	vm_flags.c    the same of large processes, without a walk through their page tables
 *	maps.c        the address space: mappings and mm fields
 *	mapped.c      the files that are mapped
 *	pages.c       which pages must be stored
 *	finder.c      the same for large trees, by a thread of its own, while all else is asked
 *	page_store.c  their places in the image, each physical frame once
 *	userfaults.c  what userfaultfds watch
 *	copy.c        target memory -> image, by as many workers as there are cores
 *	copy_inside.c the same, by helpers inside large processes: more than twice as fast
 *	youth.c       which pages were written lately, for the restore to bring first
 *	live.c        copying while the tree runs; live_pages.c: what of it still holds
 *	snapshot.c    what is too much for the freeze, kept by children that share it copy-on-write
 *	ghost.c       content without a name: shared anonymous memory, deleted files
 *	dump_files.c  descriptors -> open file descriptions -> kinds; saved_files.c: these as a whole
 *	dump_ask.c    what kinds may ask of a dump
 *	identity.c    by what a file is found again
 *	dump_heat.c   what of its files was in the page cache
 *	records.c     all of it -> records of the image
 */
#ifndef ENGINE_DUMP_H
#define ENGINE_DUMP_H

#include "engine/cgroup.h"
#include "engine/clocks.h"
#include "engine/external.h"
#include "engine/file_keys.h"
#include "engine/fsnap.h"
#include "engine/index.h"
#include "engine/ipc/ipc.h"
#include "engine/kinds/kinds.h"
#include "engine/text.h"
#include "engine/tree.h"
#include "engine/youth.h"
#include "store/store.h"

#define NAMESPACES 8

struct procfs_map;

/* Pages [page, page + npages) of a process that go to page `at` of the image. */
struct copy_job {
	struct process *process;
	uint64_t page;
	uint64_t at;
	uint64_t npages;
	bool shared; /* others map these frames, too: see copy.c */
};

/* Pages [page, page + npages) of an open file that go to page `at`. */
struct ghost_copy {
	int fd;
	uint64_t page;
	uint64_t at;
	uint64_t npages;
};

struct saved_file {
	image_file file;
	union file_state state;
	struct stat stat;
	pid_t pid; /* where it was met first, and under which number; ours: only in flight */
	int fd;
	uint64_t number; /* the kernel's own for it, the same in every descriptor of it; 0: none */
	int held; /* our own descriptor of what is only in flight, else -1 */
	const struct process *carrier; /* a message has it that waits in a socket, descriptor carrier_fd there; or NULL */
	int carrier_fd;
	bool lockless; /* no descriptor of it can tell of record locks */
	bool stuck; /* what fdinfo says of close-on-exec is the description's, and no number's */
};

struct saved_mapped {
	image_mapped image;
	bool still; /* it was described, or looked at again, since the tree stands still */
	int64_t changed_ns; /* ctime: mtime can be set back, and a watch looks again after hours */
	uint64_t device, inode; /* as /proc/PID/maps says them */
};

struct dump {
	const struct fsnap_dump_options *options;
	struct fsnap_dump_report *report;
	struct store *store;
	struct image_writer *writer;
	struct chain *chain;  /* NULL: each dump for itself */
	struct chain *lent;   /* the same, if it is the keeper's */
	struct image *parent; /* the chain's base, open */
	struct repeats { /* chain/repeats.c */
		bool likely; /* pages given out now */
		image_span *spans; /* image pages that may be as in the base */
		u_int n;
	} repeats;
	int keeper;	      /* connection, or -1 */
	bool begun;	      /* chain_begin() */
	struct tree tree;
	struct tree known; /* descendants met before the freeze; they may come and go */
	struct text_cache texts;
	struct cgroup_mounts cgroup_mounts;
	char *cgroup_seen; /* what was not frozen last, as /proc/PID/cgroup has it */
	image_cgroups cgroups;
	char time_namespace[32]; /* of the tree */
	bool other_clocks;	 /* it is not ours, and ... */
	struct clock_offsets clocks; /* ... this is what it adds */
	char namespaces[NAMESPACES][32]; /* our own, as /proc/self/ns shows them */
	uint64_t taken;	     /* image pages given out so far; reserved and claimed before they are filled */
	unsigned next_space; /* numbers address spaces and ghosts */
	bool withholds; /* what is met now is left out: secrets.h */
	bool still; /* the tree stands still: nothing changes any more */
	struct saved_mapped *mapped;
	size_t n_mapped;
	struct index mapped_index; /* by device and inode as /proc/PID/maps says them */
	image_ghost *ghosts;
	size_t n_ghosts;
	struct index ghost_index[2]; /* by device and inode as stat(2) says them; [1]: System V segments */
	size_t names_searched; /* find_name.c */
	struct ghost_copy *ghost_copies;
	size_t n_ghost_copies;
	struct async_reader *async; /* NULL: not needed so far */
	struct flags_reader *flags; /* likewise, or chain->readers has it */
	bool no_flags; /* it cannot be had */
	image_ipc ipc; /* System V objects */
	struct ipc_dump ipc_known;
	int *ghost_fds; /* of each ghost, open until its content is copied */
	size_t n_ghost_fds;
	struct saved_file **files;
	void *by_identity; /* the same, as tsearch(3) keeps them */
	size_t n_files;
	struct file_keys file_keys;
	struct externals externals;
	struct with_dump *with; /* with/with.h; NULL: no directories */
	struct file_cursor file_cursor;
	struct copy_job *jobs; /* by `at` */
	size_t n_jobs;
	struct page_run *runs;
	size_t n_runs;
	uint64_t estimate; /* pages_estimate(), when space was taken */
	struct youth youth; /* pages that were written lately */
	struct live *live; /* NULL: everything is copied while the tree stands still */
	struct snapshot *snapshot; /* snapshot.c; NULL: nothing is copied when the tree runs again */
	struct early *early; /* early.h; NULL: /proc is read in between */
	struct finder *finder; /* finder.c; NULL: pages are found in between */
	bool sleepers; /* some have wants_block (tree.h) */
	struct time_left *time_left; /* time_left.c; NULL: nobody waits with a limit */
	void *frames; /* pages.c: physical frames seen so far */
	char hold[32]; /* image_tree.hold */
	const struct process *before; /* whose directories were collected last */
	int processors; /* online, asked once: the C library looks it up in /sys each time */
	pid_t self; /* ours, also in steps that are steadfast */
	void *scratch[32]; /* of the kinds, by their place in file_kinds[] */
	struct placed *placed; /* agents that are gone, whose memory is still here (place.h) */
	int awake; /* awake.h; -1: not now */
	struct peek *peek; /* opened when it is first wanted */
	bool peeked;
};

/* dump.c: as fsnap_dump(), for who keeps a chain. */
struct chain;
void dump_free(struct dump *dump);
int dump_chained(const struct fsnap_dump_options *options, struct chain *chain, struct fsnap_dump_report *report,
		 struct fsnap_error *err);

/* look.c: the tree's root and whoever is found below it; one process, if that was not done yet; what
 * to check again once it stands still. */
int look_at_tree(struct dump *dump, struct fsnap_error *err);
int look_at_process(struct dump *dump, struct process *process, struct fsnap_error *err);
void look_doubtfully(struct process *process);
/* The name of the image: that which was asked for, or one made of the root's, in `buf`. */
const char *look_for_name(const struct dump *dump, char *buf, size_t size);

/* aio.c */
int aio_collect(struct dump *dump, struct process *process, struct fsnap_error *err);

/* look_files.c: before the freeze, what a look into its descriptors will need. */
void look_at_files(struct dump *dump, const struct process *process);

/* collect.c */
int collect(struct dump *dump, struct fsnap_error *err);

/* sharing.c: what tasks share that processes, or threads, as a rule do not, is refused; before the freeze, who shares nothing. */
void sharing_look(struct dump *dump);
int sharing_collect(struct dump *dump, struct fsnap_error *err);

/* kinship.c: sessions and groups, which must be such that a restore can make them. */
int kinship_collect(struct dump *dump, struct fsnap_error *err);

/* records.c */
int records_put(struct dump *dump, image_tree *tree, struct fsnap_error *err);

/* smaps.c asks what is costly to ask, before the freeze, or has vm_flags.c do it; maps.c the rest. */
int maps_survey(struct dump *dump, struct process *process, struct fsnap_error *err);
/* What the survey said of the mapping that begins there; NULL: nothing. */
const struct advice *maps_known_advice(const struct process *process, uint64_t start);
/* The same, of this very mapping; a new survey, unless *asked, if it knows none such. */
int maps_advice(struct dump *dump, struct process *process, uint64_t start, uint64_t end, bool *asked,
		struct advice *advice, struct fsnap_error *err);
/* What /proc/PID/stat says: where its program lies, whether it is the same as before; its group and session. */
int maps_note_program(struct process *process, struct fsnap_error *err);
int maps_collect(struct dump *dump, struct process *process, struct fsnap_error *err); /* behind it */
int maps_refuse(const struct process *process, const struct procfs_map *map, const char *what,
		const char *hint, struct fsnap_error *err);

/* mapped.c */
int mapped_open(const struct process *process, const struct procfs_map *map);
struct saved_mapped *mapped_find(struct dump *dump, struct process *process, const struct procfs_map *map,
				 struct fsnap_error *err);
int mapped_executable(struct dump *dump, struct process *process, struct fsnap_error *err);
/* From the image before: taken over, at the beginning. They are looked at again like all that was described before the freeze. */
void mapped_take_over(struct dump *dump, struct saved_mapped *mapped, size_t n);
void mapped_free_all(struct saved_mapped *mapped, size_t n);
int mapped_settle(struct dump *dump, struct fsnap_error *err); /* when all mappings have been collected */
void mapped_free(struct dump *dump);

/* pages.c: finds the pages of a process and hands them to page_store.c. */
int pages_find(struct dump *dump, struct process *process, struct fsnap_error *err);
uint64_t pages_estimate(const struct dump *dump); /* before the freeze, generously */

/* finder.c: does that in a thread of its own, if it is worth one; made before the freeze. It takes the next process of the
 * tree that has memory. In the end it is waited for. */
void finder_begin(struct dump *dump);
void finder_take(struct dump *dump);
int finder_end(struct dump *dump, struct fsnap_error *err);
void finder_stop(struct dump *dump); /* instead, or when it has ended: before the tree runs */

struct track_spans;

/* Of a range of private anonymous memory: all of it, or what tracking says was written, and said before (only): agents
 * run while a thread of its own finds pages, and what they write and put back was there all the time. */
int pages_scan(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
	       struct fsnap_error *err);
int pages_scan_written(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
		       const struct track_spans *only, struct fsnap_error *err);

/* The same in two steps, of which the first can be done by any thread: what is in a range, -1 where that is more than there
 * is room for, or not to be had; then for each region. */
struct scan_region;
int pages_ask(int pagemap, uint64_t start, uint64_t end, struct scan_region *regions, size_t room);
int pages_take_region(struct dump *dump, struct process *process, int pagemap, const struct scan_region *region,
		      struct fsnap_error *err);

/* page_store.c: pages_store() adds runs and jobs; pages_keep() runs: their copies are there (live_pages.c). */
int pages_store(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
		struct fsnap_error *err);
int pages_keep(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
	       struct fsnap_error *err);
int pages_add_job(struct dump *dump, const struct copy_job *job, struct fsnap_error *err);
void pages_forget(struct dump *dump);
uint64_t pages_take(struct dump *dump, uint64_t n); /* the next n pages of the image */
int pages_add_span(u_int *count, image_span **spans, uint64_t start, uint64_t end, struct fsnap_error *err);
int pages_add_run(struct dump *dump, const struct page_run *run, struct fsnap_error *err);

/* streamed.c: if memory of a process is still coming from the image it was restored from, waits until it has
 * come; 1: look again. -1: it does not come. */
int streamed_await(struct dump *dump, const struct process *process, struct fsnap_error *err);

/* userfaults.c: userfaults_pages() looks at the pages of ranges that were added; userfaults_check() when all files are
 * saved: was the userfaultfd of each range among them? */
void userfaults_forget(struct process *process);
int userfaults_add(struct process *process, uint64_t start, uint64_t end, bool shared, unsigned marks,
		   struct fsnap_error *err);
int userfaults_pages(struct process *process, int pagemap, struct fsnap_error *err);
int userfaults_check(const struct process *process, struct fsnap_error *err);

/* copy.c: copies all jobs; ghosts come before, because blocks are checksummed as soon as they are full. `lost`
 * (NULL: that is an error) is told of pages that are not there any more, by one at a time. */
typedef int (*copy_lost_fn)(struct dump *dump, struct process *process, uint64_t page, uint64_t npages,
			    struct fsnap_error *err);
int copy_pages(struct dump *dump, copy_lost_fn lost, struct fsnap_error *err);

/* ghost.c: notes that the content behind fd (any way to open it will do) is wanted, once; returns
 * its id or 0. What there is to copy is looked up when everything stands still: ghost_settle(). */
unsigned ghost_save(struct dump *dump, int fd, unsigned kind, const char *name,
		    struct fsnap_error *err);
unsigned ghost_find(const struct dump *dump, uint64_t dev, uint64_t ino); /* its id; 0: not wanted yet */
void ghost_linkable(struct dump *dump, unsigned id, unsigned flags); /* made with open(O_TMPFILE) */
int ghost_settle(struct dump *dump, struct fsnap_error *err);
int ghost_copy_all(struct dump *dump, struct fsnap_error *err);
void ghost_free(struct dump *dump);

/* dump_heat.c: hints about the page cache, never an error; dirty pages written back, if asked for. */
void heat_save(struct dump *dump);
int files_sync(struct dump *dump, struct fsnap_error *err);

/* dump_files.c */
int files_collect(struct dump *dump, struct process *process, struct fsnap_error *err);
/* What only the process can say of its descriptors; files_ask() returns the first of its slots. */
uint32_t files_ask(const struct process *process, struct plans *plans);
void files_answer(struct process *process, const struct plans *plans, struct ctl *ctl, uint32_t first);
/* Which file a mapping of io_uring is of; its number is that of the inode until then. */
int rings_link(struct dump *dump, struct fsnap_error *err);
/* Has a thread a ring that no descriptor leads to? rings_ask() returns the first of its slots; rings_check() when all files
 * are saved. */
uint32_t rings_ask(const struct process *process, struct plans *plans);
void rings_answer(struct process *process, const struct plans *plans, struct ctl *ctl, uint32_t first);
int rings_check(struct dump *dump, const struct process *process, struct fsnap_error *err);
/* saved_files.c */
int files_finish(struct dump *dump, struct fsnap_error *err);
int files_put(struct dump *dump, struct fsnap_error *err);
int files_silence(struct dump *dump, struct fsnap_error *err); /* see struct file_kind */
void files_free(struct dump *dump);

/* Makes room for one more element in an array of `count`; NULL with *err set when memory is out. */
void *grow(void *array, size_t count, size_t size, struct fsnap_error *err);

#endif
