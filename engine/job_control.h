/*
 * job_control.h - processes that a signal has stopped, or SIGCONT has continued, and what of that their
 * parents have been told by wait(2). Both halves.
 */
#ifndef ENGINE_JOB_CONTROL_H
#define ENGINE_JOB_CONTROL_H

#include "engine/dump.h"
#include "engine/restore.h"

/* Only the parent can ask whether it was told that a child has continued: in its plan. */
void jobs_ask(struct process *parent, struct plans *plans);
void jobs_answer(struct process *parent, const struct plans *plans, struct ctl *ctl);

/* In the plans, before SIGCHLD gets its handler: whose parent has yet to be told that it continued is stopped
 * and continued once more. */
void jobs_stop_once(struct restore *restore, const image_process *process);
void jobs_continue_children(struct restore *restore, const image_process *parent);

/* When all tasks are stopped by us, have set_task()'s registers in mind, and control memory is there: stopped
 * jobs are stopped the way they were, and parents have been told, or have not. */
int jobs_stop(struct restore *restore, struct fsnap_error *err);

/* Does it have children whose being stopped anew must not be told by SIGCHLD? Its action for that is
 * not set by its plan, but by jobs_stop(). */
bool jobs_hold_sigchld(const struct restore *restore, const image_process *parent);

#endif
