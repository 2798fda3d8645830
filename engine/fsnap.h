/*
 * fsnap.h - libfsnap: take a running process tree into one image, bring it back.
 *
 * Every function returns 0 (or what it says) on success and -1 with *err filled
 * on failure; see <fsnap/error.h>.  Nothing here prints, exits, or keeps global
 * state.  Calls on different trees may run in different threads at once; one
 * dump or restore runs in the thread that called it, because the kernel ties a
 * tracee to one tracing thread (ptrace(2)).
 *
 * Option and report structs begin with `size`: set it to sizeof(struct ...)
 * and zero the rest.  Strings and lists in options are the caller's, and read during
 * the call only.  They grow at their end; a library newer than its caller
 * reads only what the caller knew of.
 *
 * Units: times are microseconds, sizes bytes, unless the name says otherwise.
 */
#ifndef FSNAP_H
#define FSNAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <fsnap/error.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FSNAP_NAME_MAX 127  /* characters of an image's name */
#define FSNAP_NOTES_MAX 4096

/* Called now and then during long work, in the calling thread. done of total is a share, in units of the
 * phase ("copying": bytes; "restoring": operations of the plans); total may be 0: not known. */
typedef void (*fsnap_progress_fn)(void *arg, const char *phase, uint64_t done, uint64_t total);

const char *fsnap_version(void);

/* The store used when none is named: $FSNAP_STORE, else /var/lib/fsnap for root, else
 * $XDG_DATA_HOME/fsnap or ~/.local/share/fsnap. Writes the path into buf. */
int fsnap_default_store(char *buf, size_t size, struct fsnap_error *err);

/* --- dump ----------------------------------------------------------------- */

/* Whether a dump finds out what of the tree's files is in the page cache, and how warm. */
enum fsnap_heat {
	FSNAP_HEAT_AUTO = 0, /* what is cached; how warm, if it is much (finding that out costs 20 ms) */
	FSNAP_HEAT_ALWAYS,
	FSNAP_HEAT_NEVER,
};

enum fsnap_heat_source {
	FSNAP_HEAT_MINCORE = 1, /* mincore(2): what is cached */
	FSNAP_HEAT_FOLIOS = 2,	/* flags of folios, read by eBPF */
	FSNAP_HEAT_WATCH = 4,	/* a watch on the tree: what it has read */
};

struct fsnap_prefetching;

/* What becomes of TCP connections with somebody outside the tree. Those between two of its members are
 * kept in any case, where the user has CAP_NET_ADMIN. */
enum fsnap_tcp {
	FSNAP_TCP_DEFAULT = 0, /* dump: reset. restore: kept if the image keeps them and their packets have
				* been held back since, else reset */
	FSNAP_TCP_KEEP = 1,    /* dump: with kill, packets are held back until the restore */
	FSNAP_TCP_RESET = 2,   /* they come back as reset by the peer */
};

/* Is memory copied while the tree runs, and frozen only for what it has written since? */
enum fsnap_live {
	FSNAP_LIVE_AUTO = 0, /* if the tree holds more than 64 MiB, of one that is tracked (fsnap_track()) if more than 1 MiB
			      * has changed, or if max_freeze_us is given */
	FSNAP_LIVE_ALWAYS,
	FSNAP_LIVE_NEVER,
};

struct fsnap_dump_options {
	size_t size;
	pid_t pid;	   /* root of the tree: it and all its descendants are saved */
	const char *store; /* NULL: fsnap_default_store() */
	const char *name;  /* NULL: comm-pid-time */
	int kill;	   /* end the tree (SIGKILL) once the image is durable */
	fsnap_progress_fn progress; /* NULL: nothing is told */
	void *progress_arg;	    /* handed to it */
	/* NULL, or NULL-ended: "[PID:]N=KEY". Descriptor N of process PID (none: the root) leads to
	 * something outside, whatever it is; it is not saved, and a restore is handed another (see
	 * fsnap_restore_options.external and .fd). */
	const char *const *external;
	int heat;	 /* enum fsnap_heat */
	int sync_files;	 /* write dirty pages of the tree's files back before the image is durable */
	int tcp;	 /* enum fsnap_tcp */
	int live;	 /* enum fsnap_live */
	uint64_t max_freeze_us; /* how long the tree may stand still; 0: as short as it gets without much ado */
	/* NULL, or NULL-ended: directories that are copied at the same instant, into the image's own (see
	 * fsnap_restore_options.with). */
	const char *const *with;
	uint64_t mailbox; /* used by fsnap_checkpoint(): where the root waits for an answer; else 0 */
	/* NULL: the image is not encrypted. Else with what: a key file (`fsnap keygen --secret`), or "passphrase:FILE", whose
	 * first line is one. Directories (`with`) would not be, and are refused then. */
	const char *encrypt;
	const char *cipher;	/* "xchacha20", also NULL, or "aes256", which asks for a processor that has it */
	const char *compress;	/* NULL, or "zstd", "lz4", with a level: "zstd:9" */
	int leave_out;		/* enum fsnap_leave_out, any of them */
	int respect_core_limit;	/* refuse trees with a process that says that no core file be made of it */
	/* NULL, or NULL-ended "NAME=VALUE": kept with the image, for whoever asks it later (`fsnap inspect`). */
	const char *const *labels;
};

/* What of memory a dump does without; a restore has pages of zeroes there. */
enum fsnap_leave_out {
	FSNAP_LEAVE_OUT_DONTDUMP = 1, /* private memory that madvise(MADV_DONTDUMP) keeps out of core files */
};

/* Pages of content, by what they are. A frame that several processes have counts for each of them. */
struct fsnap_page_kinds {
	uint64_t anonymous;	/* private memory without a file */
	uint64_t private_file;	/* of private mappings of files: those that differ from the file */
	uint64_t shared_memory; /* of memory that is shared, memfds, segments, and of files without a name */
	uint64_t hugetlb;	/* in huge pages of the system's pool; in none of the above */
	uint64_t huge;		/* of the anonymous ones: in transparent huge pages */
	uint64_t swapped;	/* of all these: had to be got from swap; 0 for a restore */
};

struct fsnap_dump_report {
	size_t size;
	char image[FSNAP_NAME_MAX + 1];
	pid_t pid;
	unsigned processes;
	unsigned threads;
	uint64_t bytes;		  /* page content stored */
	uint64_t image_bytes;	  /* length of the image file */
	uint64_t pages;		  /* stored, each physical frame once */
	uint64_t shared_pages;	  /* references saved by storing shared frames once */
	uint64_t frozen_us;	  /* first task stopped -> last task let go */
	uint64_t total_us;	  /* call -> image durable */
	uint64_t prepare_us;	  /* before the freeze: look around, open the store */
	uint64_t seize_us;	  /* all tasks stopped */
	uint64_t collect_us;	  /* kernel state read, outside and inside */
	uint64_t copy_us;	  /* memory copied */
	uint64_t commit_us;	  /* checksums, index, metadata, commit record persistent */
	int recycled;		  /* image space was reused */
	char notes[FSNAP_NOTES_MAX]; /* lines: what a restore will do differently, and why */
	unsigned heat_files;	  /* files with pages in the page cache, noted for the restore to fetch */
	unsigned heat_sources;	  /* enum fsnap_heat_source */
	uint64_t heat_bytes;	  /* in the page cache, of these files */
	uint64_t hot_bytes;	  /* of them in use, as far as the sources can tell */
	uint64_t heat_us;	  /* finding that out, while the tree runs */
	struct fsnap_page_kinds kinds;
	unsigned rounds;	  /* of copying while the tree ran; 0: it was not live */
	uint64_t arm_us;	  /* live: beginning to track what is written */
	uint64_t arm_frozen_us;	  /* of it: the longest that a process stood still, before the freeze */
	uint64_t live_us;	  /* copying while the tree ran */
	uint64_t live_pages;	  /* copied then; what was written meanwhile counts again */
	uint64_t frozen_pages;	  /* copied while the tree stood still */
	char missed[256];	  /* max_freeze_us was not kept: why; else empty */
	uint64_t with_bytes;	  /* of files in the directories that go with it */
	uint64_t with_us;	  /* part of the freeze: copying what of them had changed */
	char parent[FSNAP_NAME_MAX + 1]; /* the image this one builds on; empty: it stands alone */
	uint64_t referred_pages;  /* of it, and of those it builds on in turn: not stored again */
	uint64_t snapshot_pages;  /* copied when the tree ran again, from children that shared them copy-on-write */
	uint64_t snapshot_us;	  /* part of the freeze: making those */
	uint64_t inside_pages;	  /* of frozen_pages: copied by helpers inside the processes */
	uint64_t young_pages;	  /* written lately: they come first in a streamed restore without a record */
};

int fsnap_dump(const struct fsnap_dump_options *options, struct fsnap_dump_report *report,
	       struct fsnap_error *err);

/* --- a program that dumps itself --------------------------------------------- */

enum { FSNAP_ORIGINAL = 0, FSNAP_COPY = 1 };

struct fsnap_checkpoint_report {
	size_t size;
	int result;		/* what was returned */
	char image[FSNAP_NAME_MAX + 1];
	uint64_t frozen_us;	/* of the original */
	unsigned copy;		/* its number, from the restore (options.copy, --clones); 0: none was given */
	/* Bytes given at the restore (options.message), followed by a NUL; they stay where they are. */
	const char *message;
	size_t message_length;
	const char *variables;	/* fsnap_copy_variable() finds them */
	size_t variables_length;
};

struct fsnap_checkpoint_options {
	size_t size;
	const char *store, *name; /* as for a dump */
	const char *command;	  /* the fsnap command; NULL: $FSNAP_COMMAND, else where it was installed */
	/* Called in a copy before fsnap_checkpoint() returns, in the same thread: the place to seed random numbers
	 * anew, and to open what is to be the copy's own. Other threads run already, and may hold any lock. */
	void (*on_copy)(void *arg, const struct fsnap_checkpoint_report *report);
	void *on_copy_arg;
};

/* Takes the calling process, and all its descendants, into an image. Returns once in the original, FSNAP_ORIGINAL,
 * and once in every process that is restored from the image, FSNAP_COPY; -1 with *err in the original only.
 * All threads of the program are in the image, wherever they are. It takes no lock of the C library and allocates
 * nothing, in the original and in copies. options and report may be NULL. A child of the caller exists for a moment,
 * about which no SIGCHLD tells. Process 1 of a PID namespace cannot do this. */
int fsnap_checkpoint(const struct fsnap_checkpoint_options *options, struct fsnap_checkpoint_report *report,
		     struct fsnap_error *err);

/* In a copy: the value of a variable given at the restore (options.env); NULL: it was not given. setenv(3) is up to
 * the program, as other threads may be using the environment. */
const char *fsnap_copy_variable(const struct fsnap_checkpoint_report *report, const char *name);

/* --- images that build on one another ------------------------------------------- */

struct fsnap_track_options {
	size_t size;
	pid_t pid; /* root of the tree */
	int stop;  /* end it */
	int heat;  /* FSNAP_HEAT_NEVER: what files the tree reads is not watched meanwhile */
};

struct fsnap_track_report {
	size_t size;
	pid_t pid;
	unsigned processes;	/* whose memory is tracked */
	uint64_t bytes;		/* of it */
	char notes[FSNAP_NOTES_MAX]; /* lines: who is not, and why */
	int heat;		/* what files it reads is watched, too */
};

/* From now on each fsnap_dump() of the tree stores only what changed since the one before. A process of its own keeps
 * track (it is no child of the caller), until told to stop or the root ends; if it is killed, dumps are whole again.
 * What files the tree reads is watched, too (`fsnap heat --watch`), until the same moment, where that may be. */
int fsnap_track(const struct fsnap_track_options *options, struct fsnap_track_report *report, struct fsnap_error *err);

struct fsnap_watch_report {
	size_t size;
	char image[FSNAP_NAME_MAX + 1]; /* the last one */
	uint64_t images;	/* made */
	uint64_t kept;		/* of them there now */
	uint64_t skipped;	/* moments at which the tree could not be saved; `why` says what the last was about */
	uint64_t late;		/* intervals that passed while an image was being made */
	uint64_t total_us;
	uint64_t frozen_us;	/* all in all */
	uint64_t frozen_max_us;
	uint64_t bytes;		/* page content stored */
	int ended;		/* the tree has */
	char why[FSNAP_NOTES_MAX];
	uint64_t spared;	/* moments left out because of max_share */
	uint64_t cpu_us;	/* processor time of it all, ours */
};

/* Thousandths of the time that a tree stands still for its watch. A server keeps nine tenths of its throughput if that is
 * a third of what it may lose: the rest goes into the fault for each first write after an image, processors that are not
 * all its own, and caches that others have used. */
#define FSNAP_WATCH_SHARE 30

struct fsnap_watch_options {
	size_t size;
	pid_t pid;
	const char *store;
	const char *name;	/* images are NAME-000001 and so on; NULL: comm-pid */
	uint64_t every_us;	/* from one freeze to the next */
	uint64_t keep;		/* how many images stay, the newest; 0: all */
	int stop_fd;		/* readable: end. 0: there is none */
	const char *const *external; /* as for a dump */
	/* Told of each image, in the calling thread; NULL: nobody. */
	void (*image)(void *arg, const struct fsnap_dump_report *report);
	void *image_arg;
	const char *encrypt, *cipher, *compress; /* as for a dump */
	/* The tree stands still for at most so many thousandths of the time: where images take longer, there are fewer of
	 * them. 0: FSNAP_WATCH_SHARE; 1000: however long. */
	unsigned max_share;
};

/* Saves a running tree over and over, each image building on the one before, until the tree ends or it is told to.
 * 0 in both cases; -1 where it could not go on: images made so far are whole. *report is filled either way. */
int fsnap_watch(const struct fsnap_watch_options *options, struct fsnap_watch_report *report, struct fsnap_error *err);

/* Makes an image of a store stand alone: what it refers to in others is copied into it. *bytes (may be NULL): so much. */
int fsnap_compact(const char *store, const char *image, uint64_t *bytes, struct fsnap_error *err);

/* --- restore ---------------------------------------------------------------- */

/* What becomes of files that are not what they were. */
enum fsnap_changed {
	FSNAP_CHANGED_DEFAULT = 0, /* mapped: refuse; open: warn */
	FSNAP_CHANGED_REFUSE,
	FSNAP_CHANGED_WARN,	   /* in the report's notes */
	FSNAP_CHANGED_ACCEPT,
};

/* Which file pages that were in the page cache at the dump are brought back into it. */
enum fsnap_prefetch {
	FSNAP_PREFETCH_HOT = 0, /* those used more than once, hottest first, then those used once of files with none
				 * of them, or with less than 16 MiB in all; everything, if no one could tell */
	FSNAP_PREFETCH_ALL,
	FSNAP_PREFETCH_OFF,
	FSNAP_PREFETCH_WARM, /* those used at all, hottest first */
};

/* Which control groups the tree is put into. */
enum fsnap_cgroup {
	FSNAP_CGROUP_LEAVE = 0, /* those of the restoring process, as anything that it starts */
	FSNAP_CGROUP_REJOIN,	/* those it was in, which must be there */
	FSNAP_CGROUP_CREATE,	/* likewise; those that are gone are made, with the limits they had */
};

/* What CLOCK_MONOTONIC and CLOCK_BOOTTIME show the tree. */
enum fsnap_clocks {
	FSNAP_CLOCKS_DEFAULT = 0, /* in the same boot as before: time has passed; else they go on, where that is
				   * permitted */
	FSNAP_CLOCKS_GO_ON,	  /* they go on where they stood, in a time namespace */
	FSNAP_CLOCKS_MACHINE,	  /* what they show the restoring process */
};

/* Which process and thread numbers the tree has. */
enum fsnap_pids {
	FSNAP_PIDS_DEFAULT = 0, /* those it had; new ones where this user may not choose (CAP_CHECKPOINT_RESTORE) */
	FSNAP_PIDS_SAME,	/* those it had */
	FSNAP_PIDS_NEW,		/* any that are free: a copy can run beside its original, and beside other copies */
};

/* How memory comes back. */
enum fsnap_memory {
	FSNAP_MEMORY_AUTO = 0, /* streamed, if there is much of it (256 MiB) and the user may; else eager */
	FSNAP_MEMORY_EAGER,    /* all of it before the tree runs */
	FSNAP_MEMORY_STREAM,   /* private memory comes when the tree runs already: what is waited for first */
};

struct fsnap_streaming;

struct fsnap_template;

struct fsnap_restore_options {
	size_t size;
	const char *store; /* NULL: fsnap_default_store() */
	const char *image; /* a name in the store, or a path with a slash; NULL: the newest image */
	int detach;	   /* the caller will not wait for the tree: stdio is left where it can live on */
	fsnap_progress_fn progress;
	void *progress_arg;
	int tcp;	   /* enum fsnap_tcp */
	int changed;	   /* enum fsnap_changed */
	/* Each NULL, or NULL-ended. */
	const char *const *map;	     /* "OLD=NEW": OLD and all below it is now NEW; the longest that fits */
	const char *const *fd;	     /* "[PID:]N=M": descriptor N of PID (none: the root) becomes the caller's M */
	const char *const *external; /* "KEY=M": what was declared so at the dump becomes the caller's M */
	int prefetch;		/* enum fsnap_prefetch */
	uint64_t prefetch_rate; /* bytes a second; 0: fast, but leaving the tree its share of the disk */
	uint64_t prefetch_max;	/* bytes in all; 0: until a tenth of memory is left */
	int prefetch_stats;	/* watch what the tree reads: report.prefetching tells what it was good for */
	int clocks;		/* enum fsnap_clocks */
	int cgroup;		/* enum fsnap_cgroup */
	int pids;		/* enum fsnap_pids */
	/* "OLD=NEW", NULL or NULL-ended: what listens at port OLD listens at NEW; 0: at any port that is free
	 * (report.listen tells which). */
	const char *const *listen;
	const char *cwd;	/* NULL, or where the root, and who was in the same directory, works now */
	/* NULL, or descriptors of the caller's that become 0, 1 and 2 of the root, and all that were the same open
	 * file, whatever they are open for; -1: stays what it was. */
	const int *stdio;
	/* "NAME=VALUE", NULL or NULL-ended: variables of the root's environment. Where the program has called
	 * fsnap_checkpoint() it finds them with fsnap_copy_variable(); in any case those that it was started with,
	 * and whose value is not longer now, are replaced in its memory. Others are an error. */
	const char *const *env;
	/* For fsnap_checkpoint() in the copy, and its number among copies; 0: none was given. */
	const void *message;
	size_t message_length;
	unsigned copy;
	/* The copy gets namespaces of its own, in which its numbers, ports and names are nobody else's. With one of
	 * PIDs an init process, the caller's child, waits for its processes and ends as the root does. */
	int pid_ns, net_ns, ipc_ns;
	/* These as an ordinary user may have them: inside a user namespace, in which that user is root. */
	int user_ns;
	int pidfd;		/* report.pidfd is wanted */
	/* Directories of the image (fsnap_dump_options.with) are put back where they were; or, NULL-ended "OLD=NEW", at
	 * NEW, which is then where the tree finds them, as with `map`. What is there must be as it was saved, or
	 * not be there, unless it may be replaced. */
	const char *const *with;
	int with_overwrite;
	int memory;		/* enum fsnap_memory */
	/* So long, which pages are touched is recorded beside the image, for later restores to bring them first;
	 * nothing else is streamed until then. 0: not at all. */
	unsigned record_ms;
	/* Rules behind those of /etc/fsnap/policy, each NULL or NULL-ended: "credentials", "devices", "network",
	 * "namespaces", "unconfined", or an absolute path. What is denied and not allowed again is an error, FORBIDDEN,
	 * before anything is made; `fsnap restore --help` explains them. */
	const char *const *allow, *const *deny;
	const struct fsnap_template *from; /* NULL, or what to fork the copy from: store and image are its */
	/* Memory that children would not have (MADV_WIPEONFORK, MAP_DROPPABLE) is zero, so that generators of random
	 * numbers that keep their state there begin anew. So it is in any case with new numbers, a number among
	 * copies, a PID namespace, from a template, or where the program has called fsnap_checkpoint(). */
	int wipe;
	const char *decrypt;	/* of an encrypted image, as fsnap_dump_options.encrypt; NULL: $FSNAP_KEY, which also counts
				 * for all else that opens images */
};

struct fsnap_restore_report {
	size_t size;
	char image[FSNAP_NAME_MAX + 1];
	pid_t pid;		/* the root process, a child of the caller */
	pid_t old_pid;		/* its PID when it was saved */
	unsigned processes;
	unsigned threads;
	uint64_t bytes;		/* page content put back */
	uint64_t total_us;	       /* call -> tree runs */
	uint64_t first_instruction_us; /* call -> root may execute its next instruction */
	uint64_t open_us;	       /* image opened and checked */
	uint64_t prepare_us;	       /* descriptors made, plans compiled */
	uint64_t build_us;	       /* plans run: tasks and memory in place */
	uint64_t release_us;	       /* registers set, tasks let go */
	int terminal;		/* the root's group should get the terminal's foreground */
	char notes[FSNAP_NOTES_MAX]; /* lines: what is different now, and why */
	unsigned prefetch_files;  /* whose pages are being brought into the page cache */
	uint64_t prefetch_bytes;  /* of them, those there already included */
	struct fsnap_prefetching *prefetching; /* NULL, or the caller's, to be freed */
	char listen[512];	/* lines "OLD=NEW": options.listen, with the ports that were found */
	pid_t root;		/* as pid; with a PID namespace pid is that of its init, and this the root's here */
	int pidfd;		/* of process `pid`, the caller's to close; -1: not asked for */
	unsigned copy;		/* options.copy */
	struct fsnap_page_kinds kinds;
	uint64_t with_us;	/* of prepare_us: directories put back */
	uint64_t stream_bytes;	/* of memory that were still to come when the tree began to run */
	uint64_t record_bytes;	/* of them in the record of an earlier restore, which come first */
	uint64_t resident_us;	/* call -> all memory is there; 0: not known yet */
	uint64_t streamed_bytes, stream_faults; /* as in fsnap_streaming_stats; for the caller to fill in */
	struct fsnap_streaming *streaming; /* NULL, or the caller's, to be freed: what is still to come */
	uint64_t young_bytes;	/* of stream_bytes, where there is no record: written lately at the dump, which come first */
	uint64_t direct_bytes;	/* of the image: read past the page cache, many pieces at a time */
};

/* An image held ready for many copies: open, verified once, and its private memory in the calling process. Copies have
 * that memory copy-on-write; where processes of a tree have different pages at an address in a mapping that they share
 * otherwise, all but one of them have theirs copied. Not to be used by two threads at once.
 * While it is open the caller has one more child, fsnap-template, that shares its descriptors: copies are forked from
 * it, with the namespaces, rights, limits, session and process group that the caller had when it opened the template; where
 * those are not to be (options.net_ns and its like, another session now), they are forked from the caller. It
 * ends with the thread that has opened the template. */
int fsnap_template_open(const char *store, const char *image, struct fsnap_template **out,
			struct fsnap_error *err);
void fsnap_template_close(struct fsnap_template *held); /* copies go on; NULL is fine */
uint64_t fsnap_template_bytes(const struct fsnap_template *held); /* of memory that copies share */
const char *fsnap_template_image(const struct fsnap_template *held); /* its name */

/* Restores one copy, with numbers of its own if options do not say another thing. Returns a pidfd of the process
 * that the caller waits for (P_PIDFD), close-on-exec; -1 with *err. image: as options.image, which is ignored;
 * options, report and err may be NULL. */
int fsnap_spawn(const char *image, const struct fsnap_restore_options *options,
		struct fsnap_restore_report *report, struct fsnap_error *err);

/* Restores `n` copies side by side, numbered from options.copy, or 1; all or none. "{n}" in options.map, .with,
 * .listen, .cwd, .env stands for the number. Limits (processes, memory, descriptors) are checked before the first is made.
 * reports: NULL, or n of them; the size of the first counts for all. */
int fsnap_clones(const struct fsnap_restore_options *options, unsigned n, struct fsnap_restore_report *reports,
		 struct fsnap_error *err);

/* Gives up the TCP connections that an image keeps: their packets are not held back any more, and find
 * nobody. Restoring it later lets them come back as reset. Does nothing where nothing is held. */
int fsnap_give_up_connections(const char *store, const char *image, struct fsnap_error *err);

/* The restored root is a child of the calling process: wait for it with waitpid(2). */
int fsnap_restore(const struct fsnap_restore_options *options, struct fsnap_restore_report *report,
		  struct fsnap_error *err);

/* Memory that came when the tree was running. */
struct fsnap_streaming_stats {
	size_t size;
	uint64_t resident_us;	  /* call of fsnap_restore() -> all memory was there */
	uint64_t bytes;		  /* that were to come; for children born meanwhile, once more */
	uint64_t streamed_bytes;  /* came */
	uint64_t zeroed_bytes;	  /* of pages without content that were waited for */
	uint64_t forgotten_bytes; /* the program threw them away before they came */
	uint64_t faults;	  /* how often a thread waited for a page */
};

/* Waits until all memory is there, or the tree has ended. -1: the tree had to be killed, because its memory
 * could not be brought. */
int fsnap_streaming_wait(struct fsnap_streaming *streaming, struct fsnap_streaming_stats *stats,
			 struct fsnap_error *err);
/* What is still to come goes on coming. NULL is fine. */
void fsnap_streaming_free(struct fsnap_streaming *streaming);

/* What prefetching was good for, so far. Precision is used / planned, recall used / touched; in blocks of 16 KiB. */
struct fsnap_prefetch_stats {
	size_t size;
	uint64_t planned_bytes; /* on the list */
	uint64_t read_bytes;	/* brought in */
	uint64_t present_bytes; /* were there already */
	uint64_t failed_bytes;	/* could not be read */
	uint64_t touched_bytes; /* of files: read or mapped by the tree since its first instruction */
	uint64_t used_bytes;	/* of them on the list */
	uint64_t total_us;	/* of reading */
	unsigned yielded;	/* how often it held back for the tree */
	int done;
	int scarce;		/* ended early: memory became scarce, or `prefetch_max` was reached */
};

struct fsnap_prefetching;
int fsnap_prefetching_stats(struct fsnap_prefetching *prefetching, struct fsnap_prefetch_stats *stats,
			    struct fsnap_error *err);
/* Ends the watch; what is being read is read on. NULL is fine. */
void fsnap_prefetching_free(struct fsnap_prefetching *prefetching);

struct fsnap_prefetch_options {
	size_t size;
	const char *store;		/* these as for a restore: */
	const char *image;
	int prefetch;			/* enum fsnap_prefetch */
	uint64_t rate, max;		/* prefetch_rate, prefetch_max */
	const char *const *map;
	fsnap_progress_fn progress;
	void *progress_arg;
};

struct fsnap_prefetch_report {
	size_t size;
	char image[FSNAP_NAME_MAX + 1];
	unsigned files;
	uint64_t bytes;		/* of all files' pages that are wanted */
	uint64_t read_bytes;	/* brought in */
	uint64_t present_bytes; /* were there already */
	uint64_t failed_bytes;	/* could not be read */
	uint64_t total_us;
	int scarce;		/* ended early: memory became scarce, or `max` was reached */
	char notes[FSNAP_NOTES_MAX]; /* files left out, and why */
};

/* Brings the file pages that a tree will want into the page cache, ahead of its restore. */
int fsnap_prefetch(const struct fsnap_prefetch_options *options, struct fsnap_prefetch_report *report,
		   struct fsnap_error *err);

/* --- core ------------------------------------------------------------------- */

struct fsnap_core_options {
	size_t size;
	const char *store; /* these as for a restore: */
	const char *image;
	pid_t pid;	    /* which process of the tree; 0: its root */
	const char *output; /* path of the file; NULL: core.PID here. One that exists is replaced */
};

struct fsnap_core_report {
	size_t size;
	char image[FSNAP_NAME_MAX + 1];
	char output[4096];
	char exe[4096]; /* its program, as the debugger wants to be told; "": not known */
	pid_t pid;
	unsigned threads;
	uint64_t bytes;	     /* of memory, written */
	uint64_t file_bytes; /* length of the file, holes included */
};

/* Makes an ELF core file (core(5)) of a process that lies in an image, as gdb opens it: all threads with their
 * registers, and the memory that the image has. What the program has excluded from cores (MADV_DONTDUMP) is not in
 * it. The file is its owner's alone. */
int fsnap_core(const struct fsnap_core_options *options, struct fsnap_core_report *report,
	       struct fsnap_error *err);

/* --- doctor ------------------------------------------------------------------- */

enum fsnap_check_state {
	FSNAP_CHECK_GOOD = 0,
	FSNAP_CHECK_PARTLY, /* something of it is there */
	FSNAP_CHECK_LACKS,  /* fsnap does without, at a price */
	FSNAP_CHECK_FATAL,  /* nothing can be saved or restored without it */
};

/* One feature of this machine, for this user. Strings are valid during the call. */
struct fsnap_check {
	size_t size;
	const char *group, *name;
	int state;	    /* enum fsnap_check_state */
	const char *found;  /* what was seen */
	const char *costs;  /* what goes without it; "" where it is good */
	const char *remedy; /* how to get it; likewise */
};

struct fsnap_doctor_options {
	size_t size;
	const char *store; /* NULL: fsnap_default_store(). Need not exist */
	void (*told)(void *arg, const struct fsnap_check *check);
	void *told_arg;
};

struct fsnap_doctor_report {
	size_t size;
	unsigned good, partly, lacks, fatal;
};

/* Tries every feature of the machine that fsnap uses, on processes of its own, and leaves nothing behind. */
int fsnap_doctor(const struct fsnap_doctor_options *options, struct fsnap_doctor_report *report,
		 struct fsnap_error *err);

/* Prints the plans of a restore to `fd` as text. Nothing is made or filled meanwhile: files that lie there are looked
 * at, and their changes refused as a restore would; what else could be in its way is not found out. */
int fsnap_explain(const struct fsnap_restore_options *options, int fd, struct fsnap_error *err);

#ifdef __cplusplus
}
#endif
#endif
