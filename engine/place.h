/*
 * place.h - the agent inside a frozen process: in, run, out.
 *
 * Placing changes nothing of the target but this: one mapping and three
 * descriptors that come and go, and dead bytes below its stack pointer.  No text
 * is written; system calls run on an instruction of its own.
 *
 * From the first changed register on, the leader's stack pointer leads to a
 * return chain on its own stack: `ret` -> the target's own signal-return code ->
 * a signal frame with everything as it was.  Should fsnap die, the kernel lets
 * the tasks run, and each goes home by its frame.  Where this cannot hold:
 *
 *  W1  the target's text has no `syscall; ret` or no signal-return sequence: death during
 *      the four bootstrap calls (some 40 us) leaves the leader with wrong registers;
 *  W2  death between the creation of the memfd and its mapping leaves that
 *      descriptor or mapping behind, unused;
 *  W3  a seccomp filter that forbids close, munmap or futex applies again when
 *      fsnap is gone: the agent's way home is then a filter violation.
 */
#ifndef ENGINE_PLACE_H
#define ENGINE_PLACE_H

#include "engine/tree.h"
#include "restorer/plan.h"

struct placed;

/* Runs `plans` inside the stopped process: task 0 in its leader, task i in process->tasks[i], all
 * at once. The agent is gone again and every thread is as it was when this returns, whatever
 * happened. The result keeps control memory for plans_data_at()/plans_slot(). */
struct placed *place_run(struct process *process, struct plans *plans, struct fsnap_error *err);
struct ctl *placed_ctl(struct placed *placed);
void placed_free(struct placed *placed);

#endif
