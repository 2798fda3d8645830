/*
 * creds.c - users, groups, capabilities, securebits, no_new_privs (credentials(7), capabilities(7)).
 *
 * Credentials belong to threads; libc only pretends otherwise.
 */
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>

#include "engine/state/state.h"

enum { REAL, EFFECTIVE, SAVED, FILE_SYSTEM }; /* indices of image_creds.uid and .gid */

/* --- dump ------------------------------------------------------------------------- */

void creds_collect_task(struct task_survey *task)
{
	task->task->image.creds = task->status.creds;
	task->status.creds.groups.groups_val = NULL; /* the image has it now */
	task->status.creds.groups.groups_len = 0;
}

void creds_ask_task(struct task_survey *task, struct plans *plans)
{
	plan_note(plans, "ask for securebits");
	plan_call(plans, task->plan, SYS_prctl, IMM(PR_GET_SECUREBITS));
	task->asks.securebits = plan_result(plans);
}

void creds_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl)
{
	task->task->image.creds.securebits =
		(unsigned)plans_slot(plans, ctl, task->asks.securebits);
}

/* --- restore ------------------------------------------------------------------------ */

static bool same_groups(const image_creds *a, const image_creds *b)
{
	unsigned n = a->groups.groups_len;
	return n == b->groups.groups_len &&
	       (!n || !memcmp(a->groups.groups_val, b->groups.groups_val, n * sizeof(u_int)));
}

static bool same_ids(const image_creds *a, const image_creds *b)
{
	return !memcmp(a->uid, b->uid, sizeof(a->uid)) && !memcmp(a->gid, b->gid, sizeof(a->gid)) &&
	       same_groups(a, b);
}

static bool same_privileges(const image_creds *a, const image_creds *b)
{
	return a->inheritable == b->inheritable && a->permitted == b->permitted &&
	       a->effective == b->effective && a->bounding == b->bounding &&
	       a->ambient == b->ambient && a->securebits == b->securebits;
}

static void set_privileges(const struct rebuild *r, uint64_t inheritable, uint64_t permitted,
			   uint64_t effective)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32),
		  (uint32_t)(inheritable >> 32) },
	};
	plan_call(r->plans, r->task, SYS_capset,
		  DATA(plans_data(r->plans, &header, sizeof(header), 8)),
		  DATA(plans_data(r->plans, sets, sizeof(sets), 8)));
}

static void set_securebits(const struct rebuild *r, unsigned bits)
{
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_SECUREBITS), IMM(bits));
}

static void prctl_each(const struct rebuild *r, uint64_t caps, int option, int sub)
{
	for (int cap = 0; cap < 64; cap++) {
		if (!(caps >> cap & 1))
			continue;
		plan_note(r->plans, "capability %d", cap);
		if (sub)
			plan_call(r->plans, r->task, SYS_prctl, IMM(option), IMM(sub), IMM(cap));
		else
			plan_call(r->plans, r->task, SYS_prctl, IMM(option), IMM(cap));
	}
}

/* setfsuid(2) never says that it failed; asked a second time it says what it is now. */
static void set_file_system_id(const struct rebuild *r, long nr, unsigned id)
{
	plan_call(r->plans, r->task, nr, IMM(id));
	plan_accept_any(r->plans);
	plan_call(r->plans, r->task, nr, IMM(id));
	plan_accept_equal(r->plans, id);
}

static void rebuild_ids(const struct rebuild *r, const image_creds *to)
{
	const image_creds *from = &r->self->thread.creds;
	if (!same_groups(to, from)) {
		plan_note(r->plans, "supplementary groups");
		plan_call(r->plans, r->task, SYS_setgroups, IMM(to->groups.groups_len),
			  DATA(plans_data(r->plans, to->groups.groups_val,
					  to->groups.groups_len * sizeof(u_int), 4)));
	}
	plan_note(r->plans, "group %u", to->gid[EFFECTIVE]);
	plan_call(r->plans, r->task, SYS_setresgid, IMM(to->gid[REAL]), IMM(to->gid[EFFECTIVE]),
		  IMM(to->gid[SAVED]));
	if (to->gid[FILE_SYSTEM] != to->gid[EFFECTIVE])
		set_file_system_id(r, SYS_setfsgid, to->gid[FILE_SYSTEM]);
	plan_note(r->plans, "user %u", to->uid[EFFECTIVE]);
	plan_call(r->plans, r->task, SYS_setresuid, IMM(to->uid[REAL]), IMM(to->uid[EFFECTIVE]),
		  IMM(to->uid[SAVED]));
	if (to->uid[FILE_SYSTEM] != to->uid[EFFECTIVE])
		set_file_system_id(r, SYS_setfsuid, to->uid[FILE_SYSTEM]);
}

/* A change of user IDs leaves capabilities alone while this bit is set. */
static void keep_capabilities(const struct rebuild *r)
{
	unsigned own = r->self->thread.creds.securebits;
	plan_note(r->plans, "keep capabilities while user IDs change");
	if (!(own & SECBIT_NO_SETUID_FIXUP))
		set_securebits(r, own | SECBIT_NO_SETUID_FIXUP);
}

/*
 * What each step needs is taken away by a later one: dropping from the bounding set and setting
 * securebits need CAP_SETPCAP; inheritable capabilities must be added while the bounding set still
 * has them; ambient ones must be permitted and inheritable when they are raised.
 */
static void rebuild_privileges_of_task(const struct rebuild *r, const image_creds *to)
{
	const image_creds *from = &r->self->thread.creds;
	if (to->inheritable != from->inheritable) {
		plan_note(r->plans, "inheritable capabilities");
		set_privileges(r, to->inheritable, from->permitted, from->effective);
	}
	prctl_each(r, from->bounding & ~to->bounding, PR_CAPBSET_DROP, 0);
	prctl_each(r, from->ambient & ~to->ambient, PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER);
	prctl_each(r, to->ambient & ~from->ambient, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE);
	plan_note(r->plans, "securebits");
	set_securebits(r, to->securebits);
	plan_note(r->plans, "capabilities");
	set_privileges(r, to->inheritable, to->permitted, to->effective);
}

void creds_rebuild_task(const struct rebuild *r)
{
	const image_creds *to = &r->thread->creds, *from = &r->self->thread.creds;
	bool ids = !same_ids(to, from);
	if (ids) {
		keep_capabilities(r);
		rebuild_ids(r, to);
	}
	if (ids || !same_privileges(to, from))
		rebuild_privileges_of_task(r, to);
	plan_note(r->plans, "no new privileges");
	if (to->no_new_privs && !from->no_new_privs)
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_NO_NEW_PRIVS), IMM(1));
}
