/*
 * chain.h - dumps of one tree that store only what changed since the one before.
 *
 *	chain.c        what is known of a tree from one dump to the next; a dump's part in it
 *	chain_pages.c  pages that have not changed since the parent image, and those that have
 *	chain_aside.c  the same in small mappings, and private pages of files
 *	repeats.c      pages that nobody watches, compared with those of the parent image
 *	readers.c      programs in the kernel that stay loaded from dump to dump
 *	mappings.c     what was read of mappings that have not changed since
 *	gentle.c       the priority of a watch while the tree runs
 *	parcel.c       a chain as bytes and descriptors, to be handed to another process
 *	keeper.c       the process that keeps it while nobody dumps (`fsnap track`)
 *	watch.c        dumps one after the other, for ever (`fsnap watch`)
 *
 * track.h tells which pages have been written since they were *taken*.  A chain says in which image that was:
 * its *base*.  What must hold at any time, also if we are killed:
 *
 *	While a chain has a base, each tracked page that is not written is what the base says.
 *
 * Taking pages is what ends that, and only the commit of the image that has them begins it again: before the
 * first page is taken the base is given up (chain_begin()), with the keeper, too.  A dump that fails in between
 * costs the next one a full image, and nobody a wrong one.
 *
 * Not tracked are, but of a chain that stays open, private mappings of files and small mappings; and shared memory, what
 * track_open() refuses: all of it is copied each time, and compared afterwards (repeats.c). Stored in full is what is new: mappings since the last dump, children, programs just executed.  Of a child's pages those that it
 * still shares with its parent are the parent's.
 */
#ifndef ENGINE_CHAIN_H
#define ENGINE_CHAIN_H

#include "engine/cgroup.h"
#include "engine/dump.h"
#include "engine/track/track.h"

struct chain_member {
	pid_t pid;
	uint64_t start;	 /* clock ticks, as /proc/PID/stat has it: this very process */
	unsigned space;	 /* in the base */
	bool based;	 /* it was tracked, and its pages taken, when the base was made */
	struct track track;
	struct known_mappings { /* mappings.c: as long as that is known to hold */
		uint64_t locked, space; /* bpf/vmas.h, when all of this was true; `locked` 0: not known */
		uint64_t taken_away; /* likewise, when the image before was made */
		char *text; /* /proc/PID/maps; NULL: not known */
		struct text_gadgets gadgets; /* with `text` */
		bool registered; /* likewise: track_register() was told of them */
		bool surveyed; /* nor has anything changed since smaps said what follows */
		uint64_t sum; /* when it did */
		unsigned times; /* that it was used */
		struct advice *advice;
		size_t n;
		uint64_t dirty;
		bool shares;
	} mappings;
};

struct chain {
	char base[128]; /* name of the image; empty: none */
	uint8_t uuid[16]; /* its own */
	struct chain_member *members;
	size_t n_members;
	struct image *open; /* the base, kept open from dump to dump if `stays_open` */
	bool stays_open;
	struct store *keys; /* whose key its images are encrypted with; NULL: each dump says */
	bool is_kept; /* by another process, too: tracking goes on without us */
	uint64_t tidy; /* image_writer_tidy() */
	uint64_t untracked; /* pages that were copied for the last image without being tracked; 0: not known */
	struct readers {
		struct wake_reader *wake;
		struct sleep_reader *sleep;
		struct vmas_reader *vmas;
		struct flags_reader *flags;
		struct fds_reader *fds;
		bool no_wake, no_sleep, no_vmas, no_flags, no_fds; /* they cannot be had */
		const struct fds_told *told; /* of the descriptors of this process, as long as it stands still */
		size_t n_told;
		const struct process *told_of;
		struct peek *peek; /* kinds/peek.h: the same kernel, whoever's descriptors are looked behind */
		bool no_peek;
		bool looked; /* an image has told what is true of its descriptors: */
		bool wants_async; /* look_files.c */
		image_machine *machine; /* what does not change while we run; NULL: not asked yet */
		struct cgroup_mounts mounts;
		int mountinfo; /* + 1, which tells when a mount has changed; 0: not open */
	} readers; /* of one that stays open */
	struct saved_mapped *mapped; /* of the base, if it stays open */
	size_t n_mapped;
	struct gentle {
		bool is; /* else its priority stays what it is */
		int usual; /* nice value */
	} gentle; /* what is done while the tree runs: gentle.c */
};

/* A process of a tree that is being dumped. */
struct chained {
	struct chain_member *member;
	bool based;
	uint64_t untracked; /* pages, more or less */
	uint64_t bytes; /* tracked; and of it, when space was taken: */
	uint64_t n_changed, n_changes; /* pages that were written; ranges of them */
	image_span *huge; /* of the base, transparent huge pages */
	size_t n_huge, huge_at; /* before it: behind us */
	image_span *guards; /* likewise, guard regions */
	size_t n_guards;
	struct page_run *kept; /* pages that have not changed, `at` as in the base */
	size_t n_kept;
	bool untouched; /* since the image before no page that was there was taken away: mappings.c */
	struct { /* chain_aside.c */
		size_t at; /* runs of the base before it are behind us */
		uint64_t from, to; /* what was met in this range is to be taken */
	} aside;
	image_span *lost; /* tracked no more */
	size_t n_lost;
};

struct chain *chain_new(void);
void chain_free(struct chain *chain);
/* NULL: it is none. */
struct chain_member *chain_member_of(struct chain *chain, const struct process *process);

/* --- of a dump; all do nothing where it has no chain ----------------------------------------------- */

/* Before the freeze: the base is opened, members are found again, newcomers tracked from now on. Where something
 * cannot be, that is stored in full. */
int chain_join(struct dump *dump, struct fsnap_error *err);
/* When there is a writer. */
void chain_inherit(struct dump *dump);
/* About how many pages of a process will be stored; UINT64_MAX: not known. */
uint64_t chain_estimate(const struct process *process);
/* Around the freeze: is the tree waiting for us? */
void chain_hurry(struct dump *dump, bool urgent);
/* The base is given up. */
void chain_begin(struct dump *dump);
/* Pages of a mapping, frozen. 1: it is not tracked. */
int chain_pages(struct dump *dump, struct process *process, int pagemap, const image_vma *vma,
		struct fsnap_error *err);
/* Nothing but pages of their own is kept of a base; these are. */
int chain_refer(struct dump *dump, struct process *process, const struct page_run *base, uint64_t page, uint64_t end,
		struct fsnap_error *err);
/* chain_aside.c, of what track_register_aside() has registered: looked at with what lies around it. Is the mapping such a one? */
bool chain_is_aside(const struct process *process, const image_vma *vma);
/* The categories that decide what is done with a region, to be asked for, too; 0: none. */
uint64_t chain_aside_asks(const struct process *process);
struct scan_region;
/* Of such a region, what is in the base and was not written is referred to, the rest stored. 1: all is to be stored. */
int chain_aside(struct dump *dump, struct process *process, int pagemap, const struct scan_region *region,
		struct fsnap_error *err);
/* When what was met is to be stored: it counts as not written from here on. */
int chain_aside_take(struct dump *dump, struct process *process, struct fsnap_error *err);
int chain_withhold(struct process *process, const image_vma *vma, struct fsnap_error *err);
/* Where in the base a page is that has this frame, and that an ancestor of the process has kept; UINT64_MAX: nowhere. */
void chain_frames(struct dump *dump, const struct process *process, uint64_t page, const uint64_t *entries,
		  uint64_t n, uint64_t *at);
/* repeats.c: pages of the image that may hold what the base has, too; when all is copied, those that do are given up. */
void repeats_note(struct dump *dump, uint64_t at, uint64_t npages);
int repeats_find(struct dump *dump, struct fsnap_error *err);
uint64_t repeats_pages(const struct dump *dump); /* so many there were */
/* The image is durable: it is the base from now on. */
void chain_commit(struct dump *dump, const uint8_t *uuid);
void chain_leave(struct dump *dump);

/* --- readers.c: BPF programs, which take 20 ms to be loaded; of a chain that stays open they are from dump to dump -- */

/* NULL: not to be had. */
struct wake_reader *readers_wake(struct dump *dump);
struct sleep_reader *readers_sleep(struct dump *dump);
struct flags_reader *readers_flags(struct dump *dump);
/* If it has been loaded. */
struct flags_reader *readers_flags_there(struct dump *dump);
/* Closes what is not to stay. */
void readers_leave_wake(struct dump *dump, struct wake_reader *reader);
void readers_leave_sleep(struct dump *dump, struct sleep_reader *reader);
void readers_leave_flags(struct dump *dump);
void readers_free(struct readers *readers);
struct peek *readers_peek(struct dump *dump);
void readers_leave_peek(struct dump *dump, struct peek *peek);
/* Need nobody look what its descriptors will want (look_files.c)? After an image: what that wanted. */
bool readers_know_files(struct dump *dump);
void readers_note_files(struct dump *dump);
/* As machine_describe(), which who stays asks once; to be left when it is written. */
int readers_machine(struct dump *dump, image_machine *machine, struct fsnap_error *err);
void readers_leave_machine(struct dump *dump, image_machine *machine);
/* Where control groups are mounted is known as long as no mount changes; false: it is to be read. */
bool readers_take_cgroup_mounts(struct dump *dump);
void readers_leave_cgroup_mounts(struct dump *dump);
/* Of one that stands still, and whose reader is there: see vmas_bare(). */
struct vmas_range;
struct vmas_reader *readers_vmas(struct dump *dump);
const struct vmas_range *readers_bare(struct dump *dump, const struct process *process, size_t *n);

/* Asks for all descriptors of one that stands still at once; false: not to be had. Before, it makes what can be asked. Then, of that process: their numbers, to be
 * freed, and what fdinfo says of one, likewise (NULL: not known, or the kernel would say more there than pos and flags). */
bool readers_descriptors(struct dump *dump, const struct process *process);
int *readers_numbers(struct dump *dump, size_t *n);
char *readers_info(struct dump *dump, const struct process *process, int number);

/* --- mappings.c: of a member of a chain that stays open, what was said last, if no mapping has changed; else asked anew --- */

/* As maps_survey(), before the others. */
int mappings_survey(struct dump *dump, struct process *process, struct fsnap_error *err);
/* /proc/PID/maps, to be freed. */
char *mappings_text(struct dump *dump, const struct process *process, struct fsnap_error *err);
/* Behind that, of a process that stands still: what was said about its mappings since mappings_survey(). Any dump may call it. */
void mappings_renew(struct dump *dump, struct process *process);
/* As text_find(). */
int mappings_find_text(struct dump *dump, struct process *process, struct fsnap_error *err);
bool mappings_are_registered(struct dump *dump, const struct process *process);
void mappings_note_registered(struct dump *dump, const struct process *process);
/* When no agent is in the tree any more, and it still stands still. */
void mappings_settle(struct dump *dump);
void mappings_forget(struct known_mappings *known);

/* --- parcel.c: over a socket -------------------------------------------------------------------------- */

struct parcel {
	int memfd; /* what it says */
	int *fds;  /* two for each member */
	unsigned n_fds;
};

int parcel_make(const struct chain *chain, struct parcel *parcel, struct fsnap_error *err); /* fds stay the chain's */
struct chain *parcel_open(struct parcel *parcel, struct fsnap_error *err); /* takes the fds over */
int parcel_send(int socket, const struct parcel *parcel, bool valid);
int parcel_receive(int socket, struct parcel *parcel, bool *valid);
void parcel_close(struct parcel *parcel);

/* --- keeper.c -------------------------------------------------------------------------------------------- */

/* Asks the keeper of a tree for its chain; NULL: there is none, or somebody else has it. *keeper is the
 * connection, as long as it is open nobody else gets the chain. */
struct chain *keeper_ask(pid_t pid, uint64_t start, int *keeper, struct fsnap_error *err);
int keeper_give_up_base(int keeper);
int keeper_return(int keeper, const struct chain *chain);
/* heat: when it is told to stop, it ends the tree's watch (heat/heat.h), too. */
int keeper_start(pid_t pid, uint64_t start, struct chain *chain, bool heat, struct fsnap_error *err);
int keeper_stop(pid_t pid, uint64_t start, struct fsnap_error *err);

/* A tree is tracked or watched, not both: the marks of which memory was written can be one's only. A watch tells others
 * of itself as long as *claim is open. */
int keeper_claim_watch(pid_t pid, uint64_t start, int *claim, struct fsnap_error *err);
int keeper_refuse_watched(pid_t pid, uint64_t start, struct fsnap_error *err);

/* What describes mapped files was true of the image before, and is checked when the tree stands still (mapped.c). */
void chain_take_mapped(struct dump *dump);

/* gentle.c: from here on others go first (`gently`, as after gentle_begin()), or it is as urgent as what it saves. */
void gentle_begin(struct gentle *gentle);
void gentle_go(const struct gentle *gentle, bool gently);
void gentle_end(struct gentle *gentle);

#endif
