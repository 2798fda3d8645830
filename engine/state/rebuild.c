/*
 * rebuild.c - the phases of a restore, in the order that state.h tells.
 */
#include "engine/state/state.h"

void rebuild_first(const struct rebuild *r)
{
	rseq_forget(r);
	limits_relax(r);
	identity_first(r);
}

void rebuild_task(const struct rebuild *r)
{
	sched_rebuild_task(r);
	identity_rebuild_task(r);
	settings_rebuild_task(r);
	rseq_rebuild_task(r);
	signals_rebuild_task(r);
}

int rebuild_process(const struct rebuild *r, struct fsnap_error *err)
{
	future_rebuild(r);
	identity_rebuild(r);
	signals_rebuild(r);
	return timers_rebuild(r, err);
}

int rebuild_privileges(const struct rebuild *r, struct fsnap_error *err)
{
	signals_rebuild_pending_task(r);
	if (seccomp_rebuild_task(r, err) < 0)
		return -1;
	creds_rebuild_task(r);
	identity_rebuild_pdeath(r);
	return 0;
}
