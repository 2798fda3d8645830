/*
 * agent.h - what the agent's files share; nobody else includes this.
 *
 *	agent.c  plans, and who runs them
 *	home.c   the way home
 */
#ifndef PARASITE_AGENT_H
#define PARASITE_AGENT_H

#include "parasite/kernel.h"
#include "parasite/plan.h"

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

/* A task other than the serving one leaves: ctl.home is set. */
void leave(struct ctl *ctl, const struct ctl_task *task) __attribute__((noreturn));

/* The serving agent: the engine is gone. Undoes what was done to this process and lets it live on. */
void go_home(struct ctl *ctl, const struct ctl_task *task) __attribute__((noreturn));

void wake_everyone(struct ctl *ctl);

#endif
