/*
 * limits.c - resource limits (prlimit(2)).
 *
 * Asked from inside: for another process the call needs CAP_SYS_RESOURCE, for oneself nothing.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/state/state.h"

_Static_assert(RLIM_NLIMITS == 16, "limit_names has a name for each");
_Static_assert(sizeof(image_limit) == sizeof(struct rlimit), "prlimit(2) fills image_limit");

const char *const limit_names[16] = {
	[RLIMIT_CPU] = "CPU time",
	[RLIMIT_FSIZE] = "file size",
	[RLIMIT_DATA] = "data size",
	[RLIMIT_STACK] = "stack size",
	[RLIMIT_CORE] = "core size",
	[RLIMIT_RSS] = "resident memory",
	[RLIMIT_NPROC] = "processes",
	[RLIMIT_NOFILE] = "open files",
	[RLIMIT_MEMLOCK] = "locked memory",
	[RLIMIT_AS] = "address space",
	[RLIMIT_LOCKS] = "file locks",
	[RLIMIT_SIGPENDING] = "pending signals",
	[RLIMIT_MSGQUEUE] = "message queues",
	[RLIMIT_NICE] = "nice",
	[RLIMIT_RTPRIO] = "real-time priority",
	[RLIMIT_RTTIME] = "real-time CPU time",
};

void limits_ask(struct survey *survey, struct plans *plans)
{
	survey->asks.limits = plans_data(plans, NULL, RLIM_NLIMITS * sizeof(image_limit), 8);
	plan_note(plans, "ask for resource limits");
	for (unsigned i = 0; i < RLIM_NLIMITS; i++)
		plan_call(plans, survey->task[0].plan, SYS_prlimit64, IMM(0), IMM(i), IMM(0),
			  DATA(survey->asks.limits + i * (unsigned)sizeof(image_limit)));
}

int limits_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl,
		  struct fsnap_error *err)
{
	image_process *image = &survey->process->image;
	size_t size = RLIM_NLIMITS * sizeof(image_limit);
	image->limits.limits_val = malloc(size);
	if (!image->limits.limits_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "listing resource limits");
	memcpy(image->limits.limits_val, plans_data_at(plans, ctl, survey->asks.limits), size);
	image->limits.limits_len = RLIM_NLIMITS;
	return 0;
}

static void set_limit(const struct rebuild *r, unsigned which, image_limit limit)
{
	plan_call(r->plans, r->task, SYS_prlimit64, IMM(0), IMM(which),
		  DATA(plans_data(r->plans, &limit, sizeof(limit), 8)), IMM(0));
}

/* What limits_relax() makes of an inherited limit: a newborn that dies still leaves no core. */
static image_limit relaxed(unsigned which, image_limit limit)
{
	return (image_limit){ which == RLIMIT_CORE ? limit.current : limit.maximum, limit.maximum };
}

static bool equal(image_limit a, image_limit b)
{
	return a.current == b.current && a.maximum == b.maximum;
}

void limits_relax(const struct rebuild *r)
{
	const image_process *self = &r->self->process;
	for (unsigned i = 0; i < self->limits.limits_len; i++) {
		image_limit limit = self->limits.limits_val[i];
		plan_note(r->plans, "no soft limit of %s meanwhile", limit_names[i]);
		if (!equal(limit, relaxed(i, limit)))
			set_limit(r, i, relaxed(i, limit));
	}
}

void limits_rebuild(const struct rebuild *r)
{
	const image_process *self = &r->self->process;
	for (unsigned i = 0; i < r->process->limits.limits_len && i < RLIM_NLIMITS; i++) {
		image_limit limit = r->process->limits.limits_val[i];
		plan_note(r->plans, "limit of %s", limit_names[i]);
		if (!equal(limit, relaxed(i, self->limits.limits_val[i])))
			set_limit(r, i, limit);
	}
}
