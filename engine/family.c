#include "engine/family.h"

#include <stdlib.h>

#include "engine/numbers.h"

#define ANY (-1) /* session at birth: whichever */

static bool leads_session(const struct kin *kin)
{
	return kin->sid == kin->pid;
}

/* --- sessions at birth ---------------------------------------------------------------- */

/* The session as the restored tree will have it: what is outside is that of whoever restores. */
static int session_of(const struct kin *kin, const struct numbers *index)
{
	return kin->session_lost || numbers_get(index, kin->sid) != NUMBERS_NONE ? kin->sid : 0;
}

static bool is_ancestor(const struct family *family, int pid, size_t of)
{
	for (size_t up = family->kin[of].parent; up != KIN_NONE; up = family->kin[up].parent)
		if (family->kin[up].pid == pid)
			return true;
	return false;
}

/* A leader was born into another session. Into which shows in children that it forked before: they are in a
 * session that is not theirs, nor its own, but that of an ancestor or of the world outside. */
static void guess_birth_sessions(struct family *family, int *births, const struct numbers *index)
{
	for (size_t i = family->n; i-- > 0;) {
		const struct kin *kin = &family->kin[i];
		if (!leads_session(kin))
			births[i] = session_of(kin, index);
		if (kin->parent == KIN_NONE || births[i] == ANY)
			continue;
		const struct kin *parent = &family->kin[kin->parent];
		if (leads_session(parent) && births[kin->parent] == ANY && births[i] != parent->pid &&
		    (births[i] == 0 || is_ancestor(family, births[i], kin->parent)))
			births[kin->parent] = births[i];
	}
}

/* --- stand-ins -------------------------------------------------------------------------- */

static struct stand_in *add_stand_in(struct family *family, int pid, size_t parent, bool session,
				     struct fsnap_error *err)
{
	struct stand_in *more =
		reallocarray(family->stand_ins, family->n_stand_ins + 1, sizeof(*more));
	if (!more) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "the family of processes");
		return NULL;
	}
	family->stand_ins = more;
	struct stand_in *added = &more[family->n_stand_ins];
	size_t *siblings = parent == KIN_NONE ? NULL : &family->kin[parent].first_stand_in;
	*added = (struct stand_in){ .pid = pid, .session = session, .parent = parent, .first = KIN_NONE,
				    .next = siblings ? *siblings : KIN_NONE };
	if (siblings)
		*siblings = family->n_stand_ins;
	family->n_stand_ins++;
	return added;
}

static int cannot(const struct kin *kin, const char *why, struct fsnap_error *err)
{
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d: %s %d, where no process of the tree can be put", kin->pid,
	     why, kin->sid);
	return error_hint(err, "save the process from which they all descend");
}

/* All members of a session that has lost its leader and that did not inherit it from their parents hang
 * below one parent, unless subreapers are nested. */
static int born_of_stand_in(struct family *family, size_t number, struct numbers *sessions,
			    struct fsnap_error *err)
{
	struct kin *kin = &family->kin[number];
	size_t at = numbers_get(sessions, kin->sid);
	if (at == NUMBERS_NONE) {
		at = family->n_stand_ins;
		struct stand_in *added = add_stand_in(family, kin->sid, kin->parent, true, err);
		if (!added)
			return -1;
		added->exit_signal = kin->exit_signal;
		if (numbers_put(sessions, kin->sid, at) < 0)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "the family of processes");
	}
	struct stand_in *stand_in = &family->stand_ins[at];
	if (stand_in->parent != kin->parent || stand_in->exit_signal != kin->exit_signal)
		return cannot(kin, "it is in the session of the ended process", err);
	kin->birth = BIRTH_STAND_IN;
	kin->maker = at;
	return 0;
}

/* --- births --------------------------------------------------------------------------------- */

/* An orphan comes to the nearest subreaper above: no other may be between. */
static int born_as_orphan(struct family *family, size_t number, size_t leader, struct fsnap_error *err)
{
	struct kin *kin = &family->kin[number];
	size_t up = family->kin[leader].parent;
	while (up != KIN_NONE && up != kin->parent && up != number && !family->kin[up].adopts)
		up = family->kin[up].parent;
	if (up == KIN_NONE || up != kin->parent || leader == number || family->kin[leader].adopts)
		return cannot(kin, "it is in the session of process", err);
	/* Nor may those become orphans of this one who are another's further up. */
	for (size_t above = family->kin[up].parent; above != KIN_NONE; above = family->kin[above].parent)
		if (family->kin[above].adopts && !family->kin[up].adopts)
			return cannot(kin, "it is in the session of process", err);
	family->kin[up].adopts = true;
	kin->birth = BIRTH_ORPHAN;
	kin->maker = leader;
	family->n_orphans++;
	return 0;
}

static int born_elsewhere(struct family *family, size_t number, int session, const struct numbers *index,
			  struct fsnap_error *err)
{
	struct kin *kin = &family->kin[number];
	size_t leader = session ? numbers_get(index, session) : NUMBERS_NONE;
	if (leader == NUMBERS_NONE)
		return cannot(kin, "it is in the session outside the tree of process", err);
	/* CLONE_PARENT gives it the exit signal of its sibling, too. */
	if (family->kin[leader].parent == kin->parent && leader != number &&
	    family->kin[leader].exit_signal == kin->exit_signal) {
		kin->birth = BIRTH_SIBLING;
		kin->maker = leader;
		return 0;
	}
	return born_as_orphan(family, number, leader, err);
}

static int choose_birth(struct family *family, size_t number, int session, const struct numbers *index,
			struct numbers *sessions, struct fsnap_error *err)
{
	struct kin *kin = &family->kin[number];
	bool first = kin->parent == KIN_NONE;
	const struct kin *parent = first ? NULL : &family->kin[kin->parent];
	int own = first ? 0 : session_of(parent, index);
	kin->birth = BIRTH_CHILD;
	kin->maker = kin->parent;
	kin->born_in = session == ANY ? own : session;
	if (kin->born_in == own)
		return 0;
	if (!first && leads_session(parent) && kin->born_in == parent->born_in) {
		kin->before = true;
		return 0;
	}
	return kin->session_lost && !leads_session(kin) ? born_of_stand_in(family, number, sessions, err) :
							  born_elsewhere(family, number, session, index, err);
}

/* In reverse, so that each list is in the order of the records. */
static void list_births(struct family *family)
{
	for (size_t i = 0; i < family->n_stand_ins; i++)
		family->stand_ins[i].first = KIN_NONE;
	for (size_t i = family->n; i-- > 0;) {
		struct kin *kin = &family->kin[i];
		size_t *list = kin->birth == BIRTH_STAND_IN ? &family->stand_ins[kin->maker].first :
			       kin->maker != KIN_NONE	    ? &family->kin[kin->maker].first :
							      NULL;
		kin->next = list ? *list : KIN_NONE;
		if (list)
			*list = i;
		if (kin->parent == KIN_NONE)
			continue;
		kin->next_child = family->kin[kin->parent].first_child;
		family->kin[kin->parent].first_child = i;
	}
}

/* --- process groups ---------------------------------------------------------------------------- */

/* At birth everybody is in the group that began along with the session; setsid() begins one, too. */
static int choose_group(struct family *family, size_t number, const struct numbers *index,
			struct numbers *groups, struct fsnap_error *err)
{
	struct kin *kin = &family->kin[number];
	int there = leads_session(kin) ? kin->pid : kin->born_in;
	bool begins = kin->pgid == kin->pid;
	family->n_groups += begins;
	if (kin->pgid == there || leads_session(kin))
		return 0;
	if (begins || numbers_get(index, kin->pgid) != NUMBERS_NONE) {
		kin->joins = kin->pgid;
		return 0;
	}
	if (!kin->group_lost)
		return 0;
	kin->joins = kin->pgid;
	family->n_joiners++;
	if (numbers_get(groups, kin->pgid) != NUMBERS_NONE)
		return 0;
	family->n_groups++;
	if (numbers_put(groups, kin->pgid, number) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the family of processes");
	return add_stand_in(family, kin->pgid, number, false, err) ? 0 : -1;
}

/* --- all ------------------------------------------------------------------------------------------ */

static int index_kin(struct family *family, struct numbers *index, int *births, struct fsnap_error *err)
{
	for (size_t i = 0; i < family->n; i++) {
		struct kin *kin = &family->kin[i];
		kin->parent = i ? numbers_get(index, kin->ppid) : KIN_NONE;
		kin->first = kin->next = kin->first_stand_in = KIN_NONE;
		kin->first_child = kin->next_child = KIN_NONE;
		births[i] = ANY;
		if (numbers_put(index, kin->pid, i) < 0)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "the family of processes");
	}
	return 0;
}

static int plan_births(struct family *family, int *births, struct numbers *index, struct numbers *sessions,
		       struct numbers *groups, struct fsnap_error *err)
{
	if (index_kin(family, index, births, err) < 0)
		return -1;
	guess_birth_sessions(family, births, index);
	for (size_t i = 0; i < family->n; i++)
		if (choose_birth(family, i, births[i], index, sessions, err) < 0)
			return -1;
	list_births(family);
	for (size_t i = 0; i < family->n; i++)
		if (choose_group(family, i, index, groups, err) < 0)
			return -1;
	return 0;
}

int family_plan(struct family *family, struct fsnap_error *err)
{
	struct numbers index = { 0 }, sessions = { 0 }, groups = { 0 };
	int *births = calloc(family->n + 1, sizeof(*births));
	int result = births ? plan_births(family, births, &index, &sessions, &groups, err) :
			      fail(err, FSNAP_E_NOMEM, ENOMEM, "the family of processes");
	free(births);
	numbers_free(&index);
	numbers_free(&sessions);
	numbers_free(&groups);
	return result;
}

void family_free(struct family *family)
{
	free(family->stand_ins);
	free(family->kin);
	*family = (struct family){ 0 };
}
