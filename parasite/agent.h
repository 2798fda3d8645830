/*
 * agent.h - what the agent's files share; nobody else includes this.
 *
 *	agent.c  plans, and who runs them
 *	home.c   the way home
 *	lend.c   what is lent to this process for a while
 *	bulk.c   copying much, with sums
 */
#ifndef PARASITE_AGENT_H
#define PARASITE_AGENT_H

#include "parasite/kernel.h"
#include "parasite/plan.h"

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

/* A task other than the serving one leaves: ctl.home is set. */
void leave(struct ctl *ctl, struct ctl_task *task) __attribute__((noreturn));

/* The serving agent: the engine is gone. Undoes what was done to this process and lets it live on. */
void go_home(struct ctl *ctl, struct ctl_task *task) __attribute__((noreturn));

void wake_everyone(struct ctl *ctl);

/* What PLAN_SOCKETS, PLAN_BORROW and PLAN_GIVE_BACK do. */
int64_t make_sockets(struct ctl *ctl);
int64_t borrow(struct ctl *ctl);
int64_t give_back(struct ctl *ctl);

/* What PLAN_BULK does, in the helper of `task`; ends early when ctl.home is set. 0, or -errno: it could copy
 * nothing (any more). */
int64_t bulk_copy(struct ctl *ctl, struct ctl_task *task, struct plan_bulk *bulk);

#endif
