/*
 * placed.h - what the parts of placing the agent share; nobody else includes this.
 *
 *	place.c   the whole: in, run, out, for many processes at once
 *	stages.c  system calls in the processes, each for all of them
 *	talk.c    setting agents off, their orders and answers
 *	home.c    the frames by which threads find home
 *	place_bulk.c  what goes on while a leader's helpers copy
 */
#ifndef ENGINE_PLACED_H
#define ENGINE_PLACED_H

#include "engine/home.h"
#include "engine/place.h"

struct placed {
	struct placed *next; /* placed_retire() */
	struct process *process;
	struct plans *plans;
	size_t n; /* threads that enter: the first of process->tasks */
	void *map;	  /* the agent's memory, here */
	size_t size;	  /* bytes of it, text included; rather too many, where the plans are not known yet */
	bool ready;	  /* frames are laid, registers and masks lead home */
	bool sent;	  /* the leader is in the agent */
	uint64_t base;	  /* there; 0: not mapped */
	uint64_t chain;	  /* there; 0: none */
	bool by_address;  /* it may be opened by where it lies there, which takes no descriptor of the target */
	uint64_t stray;	  /* there; a mapping that was no use; 0: none */
	size_t stray_size;
	int remote_memfd; /* else its number there; -1: closed, or none */
	uint32_t memfd_slot; /* tells the plan that number */
	bool held;	  /* ctl.engine */
	struct home *homes;
	uint64_t args[6]; /* of the call being made there */
};

static inline struct task *leader(const struct placed *placed)
{
	return placed->process->tasks[0];
}

/* stages.c: the system calls of the way in, and of the way out, in order. */
int stages_in(struct placement *all, size_t n, struct fsnap_error *err);
int stages_out(struct placement *all, size_t n, struct fsnap_error *err);
/* Begins the first call of the way in, which the way in goes on with; or gives it up. */
int stages_begin(struct placed *placed, struct fsnap_error *err);
int stages_go_on(struct placed *placed, struct fsnap_error *err);
void stages_give_up(struct placed *placed);
/* May this process open the mappings of others by their addresses (/proc/PID/map_files)? */
bool stages_by_address(void);
/* The agent's memory has been left by everybody: it does not concern our death any more. */
void stages_let_go(struct placed *placed);

/* talk.c: each of these for one process. */
int talk_send_leader(struct placed *placed, struct fsnap_error *err);
int talk_send_threads(struct placed *placed, struct fsnap_error *err);
/* Until the leader has posted PLACE_READY; and on with it. */
int talk_await_ready(struct placed *placed, struct fsnap_error *err);
int talk_await_posted(struct placed *placed, uint32_t barrier, struct fsnap_error *err);
void talk_post(struct placed *placed, uint32_t barrier);
/* Has the leader ended, or stopped where it should not? */
int talk_look_after(struct placed *placed, struct fsnap_error *err);
/* Sends a descriptor for PLAN_BORROW. */
int talk_lend(struct placed *placed, int fd, struct fsnap_error *err);
void talk_go_on(struct placed *placed);
int talk_await_answers(struct placed *placed, struct fsnap_error *err);
/* Gives a thread registers that lead home. */
int talk_lead_home(struct placed *placed, size_t number, struct fsnap_error *err);
/* The same, then a mask of all signals. */
int talk_turn_home(struct placed *placed, size_t number, struct fsnap_error *err);
/* The target has run into a limit of its own. Returns -1. */
int placed_no_room(const struct placed *placed, int sys, struct fsnap_error *err);

#endif
