/*
 * restore.h - what the parts of a restore share. The story itself is restore.c.
 *
 *	model.c          the image's records, decoded and checked
 *	workshop.c       room for what the tasks inherit, and the order in which it is made
 *	restore_files.c  every open file description, made in this process
 *	restore_open.c   files that are opened by their paths
 *	restore_ask.c    what kinds may ask of a restore
 *	restore_heat.c   file pages that it will want, on their way into the page cache
 *	restore_stream.c memory that comes when the tree runs already
 *	restore_ghost.c  content without a name, made anew
 *	restore_memfd.c  memfds and their seals; content in huge pages
 *	compile*.c       image -> one plan per task
 *	helpers.c        threads that help to fill large memory
 *	settle_files.c   what must be done to a descriptor in a process that has it
 *	late_files.c     what only a message in a Unix socket has, and needs the tree
 *	control_memory.c where plans, agent and answers lie
 *	launch.c         plans -> tasks: spawn, await, take hold
 *	release.c        tasks -> the program
 */
#ifndef ENGINE_RESTORE_H
#define ENGINE_RESTORE_H

#include "engine/cgroup.h"
#include "engine/family.h"
#include "engine/file_keys.h"
#include "engine/fsnap.h"
#include "engine/handed.h"
#include "engine/ipc/ipc.h"
#include "engine/kinds/kinds.h"
#include "engine/model.h"
#include "engine/policy.h"
#include "engine/heat/fetch.h"
#include "engine/ports.h"
#include "engine/remap.h"
#include "engine/renumber.h"
#include "engine/shelves.h"
#include "engine/state/state.h"
#include "engine/streaming.h"
#include "restorer/heirloom.h"

/* Where a descriptor is that was put on a shelf. */
struct workshop_place {
	unsigned shelf; /* from 1; 0: none */
	int number;	/* there */
};

struct workshop_file {
	union file_state state;
	int fd; /* -1: not made yet */
	struct workshop_place place;
	bool given;
	bool handed; /* by the caller: nothing of it is ours to set */
	bool arrived; /* it is late, and no stand-in any more */
	const image_process *holder; /* the first process, by number of records, that has it ... */
	int number;		     /* ... under this number */
};

enum { CGROUP_HIERARCHIES = 32 };

/* Where tasks are put, by hierarchy. */
struct cgroup_place {
	int fds[CGROUP_HIERARCHIES]; /* of cgroup.procs */
	char *path[CGROUP_HIERARCHIES];
	unsigned n;
};

/* cgroup_restore.c; places is NULL where the tree stays in our groups. */
struct cgroup_restore {
	image_cgroups image;
	struct cgroup_mounts mounts;
	struct cgroup_place *places; /* by place */
	struct numbers place_of;     /* by PID */
	char *own;		     /* what we are in */
};

struct staging;

struct restore {
	const struct fsnap_restore_options *options;
	struct fsnap_restore_report *report;
	struct store *store;
	struct image *image;
	struct model model;
	struct inherited self;
	struct remap remap;
	struct policy policy;
	struct with_restore *with; /* with/with.h; NULL: the image has no directories */
	struct fetch fetch;
	struct handed handed;
	struct ports ports;
	struct shelves shelves;
	struct streaming streaming;
	struct staging *staging; /* staging.h; NULL: the image is read as any file */
	uint64_t began_ns; /* CLOCK_MONOTONIC */

	/* The workshop: descriptors of this process from number `bench` on, above all that the
	 * restored tasks use, which inherit them, take what is theirs, and close the rest. */
	int bench;
	struct workshop_file *files; /* by image_file.id - 1 */
	struct file_keys file_keys;
	struct file_cursor file_cursor;
	int *mapped_fd;		     /* by image_mapped.id */
	int *mapped_write_fd;	     /* likewise, of those that are mapped for writing */
	int *ghost_fd;		     /* by space */
	struct workshop_place *ghost_place; /* the same */
	int *linkable_fd;	     /* the same, if made with O_TMPFILE: what its open() returned */
	int *cwd_fd, *root_fd;	     /* by process; root: -1 where it is our own */
	int stdio[3];		     /* what was 0, 1, 2 */
	int *image_fds;		     /* of its files: image_locate() */
	void *scratch[32];

	struct shm_made *shms; /* ipc/shm.c: by place in model.ipc.shms */
	struct takeback *takebacks; /* takeback.h; NULL: nothing to be taken back */

	int *ring_fd;	       /* by image_file.id: of rings of io_uring, to be mapped; else -1 */

	struct renumber renumber;
	struct plans *plans;
	uint32_t *first_task; /* by process: its leader's task; its threads follow */
	struct family family; /* in the order of the image's processes */
	uint32_t *stand_in_task; /* by stand-in */
	uint32_t *sleep_data;	/* by task: a timespec of what remained of a sleep */
	uint32_t *sigchld_data; /* by process: its action for SIGCHLD, see job_control.h */
	unsigned *common_filters; /* by process: see state.h */
	uint32_t n_filtered;	  /* processes that have some */
	uint32_t n_parking;   /* tasks that will park: all but zombies */
	uint32_t n_leaving;   /* of these, main threads that end then while others go on */
	struct memory_source source;
	struct vdso_redirection redirection; /* in use if source.redirection is set */
	bool foreign; /* the image is of another kernel build */
	struct heirlooms *heirlooms; /* NULL: no memory is shared copy-on-write */

	void *control; /* control memory as mapped here, text first, at its address in all tasks */
	size_t control_size;
	struct cgroup_restore cgroups;
	int time_namespace; /* that the tree lives in; -1: ours */
	struct tree tracees; /* what was made, once it is traced */
	pid_t root;	     /* 0: nothing was made yet */
	bool blamed;	     /* the error says which descriptor it is about: restore_blame() */
	int sole;	     /* sole.h; -1: not held */
	struct keeper *keeper; /* whom the tree is forked from; NULL: us */
	bool areas_lost; /* what the keeper holds for this tree's processes is not what they share */
	bool explaining;     /* plans are only to be shown: nothing is made, descriptors are numbers (workshop.c) */
	int pretended;	     /* of these, so far */
};

/* restore.c: the first steps, for whoever only wants plans (explaining): everything of the image known; it fits this
 * machine; files (or numbers for them) made, and the plans. restore_end() in any case. */
void restore_begin(struct restore *restore, const struct fsnap_restore_options *options,
		   struct fsnap_restore_report *report);
int restore_open_image(struct restore *restore, struct fsnap_error *err);
int restore_fit(struct restore *restore, struct fsnap_error *err);
int restore_plan(struct restore *restore, struct fsnap_error *err);
void restore_end(struct restore *restore);

/* workshop.c */
int workshop_open(struct restore *restore, struct fsnap_error *err);
int workshop_open_mapped(struct restore *restore, struct fsnap_error *err); /* mapped files alone, for a keeper */
void workshop_release(struct restore *restore); /* see struct file_kind */
void workshop_close(struct restore *restore);
/* Moves a new descriptor to the bench; takes ownership. Where there are more than one process may have,
 * it stays where it is: it goes to a shelf, or is used before tasks get their own. */
int workshop_keep(struct restore *restore, int fd, struct fsnap_error *err);
/* The same, whatever there is. */
int workshop_bench(struct restore *restore, int fd, struct fsnap_error *err);
/* restore->explaining: a number for a descriptor that is not there. */
int workshop_pretend(struct restore *restore);

/* restore_files.c: parts of workshop_open(), as the next two are. */
int files_make(struct restore *restore, struct fsnap_error *err);

/* restore_open.c: fills mapped_fd and mapped_write_fd for one file; cwd_fd and root_fd for all processes. */
int mapped_reopen(struct restore *restore, const image_mapped *mapped, struct fsnap_error *err);
int directories_open(struct restore *restore, struct fsnap_error *err);

/* restore_heat.c: has file pages brought into the page cache by a process of its own; never an error. */
void heat_fetch(struct restore *restore);
void heat_fetch_watch(struct restore *restore); /* before the tree runs, if statistics are asked for */
void heat_fetch_stop(struct restore *restore); /* the restore is given up */

/* restore_ghost.c: fills restore->ghost_fd for one ghost if that was not done yet. */
int ghost_make(struct restore *restore, unsigned ghost_id, struct fsnap_error *err);

/* restore_memfd.c: parts of ghost_make(). Seals that new mappings for writing would violate are set by
 * ghosts_seal(), when all tasks have theirs. */
int ghost_make_memfd(const image_ghost *ghost);
unsigned ghost_huge_flags(const image_ghost *ghost);
bool ghost_is_huge(const image_ghost *ghost, int fd);
int ghost_fill_huge(const struct restore *restore, const image_ghost *ghost, int fd, struct fsnap_error *err);
int ghost_seal_early(const image_ghost *ghost, int fd, struct fsnap_error *err);
int ghosts_seal(struct restore *restore, struct fsnap_error *err);

/* restore.c: a process that bears copies of a template, if there can be one. */
void restore_keep(struct fsnap_template *template);

/* compile.c */
int compile(struct restore *restore, struct fsnap_error *err);

/* settle_files.c: operations for files this process is the one to settle, in the order of a plan.
 * arrive_files() posts and awaits `barrier`. */
void settle_files(struct restore *restore, const image_process *process, uint32_t task);

/* late_files.c: what only messages have, and can be finished when everybody is born and nobody runs. */
int files_complete(struct restore *restore, struct fsnap_error *err);
void settle_task_files(struct restore *restore, const image_process *process, pid_t tid, uint32_t task);
int arrive_files(struct restore *restore, const image_process *process, uint32_t task, uint32_t barrier,
		 struct fsnap_error *err);
void settle_parked_files(struct restore *restore, const image_process *process, pid_t tid, uint32_t task);
void arm_files(struct restore *restore, const image_process *process, uint32_t task);
/* A descriptor of ours for a file that its holder has by now; the caller closes it. */
int restore_borrow(struct restore *restore, const struct workshop_file *made, struct fsnap_error *err);
/* What this process does to files when all stand still: see struct file_kind. */
int equip_files(struct restore *restore, struct fsnap_error *err);
int drive_files(struct restore *restore, struct fsnap_error *err);

/* environment.c: options.env, when everybody is traced and memory is what it was. */
int environment_change(struct restore *restore, struct fsnap_error *err);

/* helpers.c: how many threads may help to fill the memory of each process that has much; which numbers they
 * get in the one whose plan is written next. */
void helpers_prepare(struct restore *restore);
void helpers_turn_to(struct restore *restore, const image_process *process);

/* cpus.c: affinities that this machine can satisfy, a note for each that it cannot. */
void fit_affinities(struct restore *restore);

/* step_hint.c: adds what can be done about it, if anything is known; returns -1. */
int step_hint(long nr, int sys, struct fsnap_error *err);

/* control_memory.c: finds a place for it, before plans are compiled; puts plans and agent there. */
struct memory_range *control_own_ranges(size_t *n, struct fsnap_error *err); /* what is mapped here; malloc'ed */
int control_reserve(struct restore *restore, struct fsnap_error *err);
int control_lay(struct restore *restore, struct fsnap_error *err);
void control_free(struct restore *restore);

static inline struct ctl *restore_control(const struct restore *restore)
{
	return (struct ctl *)((char *)restore->control + AGENT_TEXT);
}

/* launch.c, release.c: launch() brings all tasks to the end of their plans; release() makes them the program;
 * give_up() removes all that was made. */
/* PID_TAKEN where a number that the image needs is in use. */
int launch_check_numbers(const struct restore *restore, struct fsnap_error *err);
int launch(struct restore *restore, struct fsnap_error *err);
int release(struct restore *restore, struct fsnap_error *err);
void give_up(struct restore *restore);

#endif
