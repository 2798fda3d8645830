/*
 * sem_undo.c - what the kernel will add to semaphores when a process ends (SEM_UNDO of semop(2)).
 *
 * No call and no file of /proc tells these adjustments.  But semop(2) fails with ERANGE where one
 * would leave the range of a short, before it fails with EAGAIN at a later operation that has to
 * wait, and whatever fails leaves everything as it was (ipc/sem.c, perform_atomic_semop_slow()).
 * So a process asks about its own: operations that move the adjustment by X, each with an opposite
 * one that has no SEM_UNDO, so that the value stays; and at the end one that cannot go through.
 * The errno tells whether adjustment + X was still in range, and bisection tells the rest.
 *
 * The threads of a process share one list (CLONE_SYSVSEM, as all thread libraries have it): the
 * leader's is asked for.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#include "engine/dump.h"
#include "engine/ipc/ipc.h"
#include "engine/place.h"
#include "engine/restore.h"
#include "store/scope.h"

#define LOWEST (-32768)
#define HIGHEST 32767
#define STEP 16384     /* either up or down there is always room for so much */
#define PROBE 12       /* operations that one question takes at most */
#define AT_ONCE 256    /* questions about one semaphore in one go */
#define OPERATIONS 500 /* SEMOPM's default, semop(2) */

/* --- one question --------------------------------------------------------------------- */

static size_t put(struct sembuf *to, unsigned number, int op, int flags)
{
	*to = (struct sembuf){ (unsigned short)number, (short)op, (short)(IPC_NOWAIT | flags) };
	return 1;
}

/* Moves the adjustment by `by`, and the value nowhere. */
static size_t put_move(struct sembuf *to, unsigned number, unsigned value, int by)
{
	size_t n = 0;
	while (by) {
		int step = by > STEP ? STEP : by < -STEP ? -STEP : by;
		/* An operation moves the value one way, the adjustment the other. */
		bool undo_first = step < 0 ? value <= STEP - 1 : value >= STEP;
		n += put(&to[n], number, undo_first ? -step : step, undo_first ? SEM_UNDO : 0);
		n += put(&to[n], number, undo_first ? step : -step, undo_first ? 0 : SEM_UNDO);
		by -= step;
	}
	return n;
}

/* An operation that has to wait, whatever the value is: for zero, when it is not. */
static size_t put_end(struct sembuf *to, unsigned number, unsigned value)
{
	size_t n = value < HIGHEST ? put(to, number, 1, 0) : 0;
	return n + put(&to[n], number, 0, 0);
}

static uint32_t call(struct plans *plans, uint32_t task, int id, const struct sembuf *ops, size_t n)
{
	plan_call(plans, task, SYS_semop, IMM(id),
		  DATA(plans_data(plans, ops, n * sizeof(*ops), 2)), IMM(n));
	plan_accept_any(plans);
	return plan_result(plans);
}

/* --- is there anything? ------------------------------------------------------------------ */

/* Of several semaphores of a set at once: none is below zero (up: above). */
static size_t put_none(struct sembuf *ops, const struct sem_known *set, unsigned from, unsigned to,
		       bool up)
{
	size_t n = 0;
	for (unsigned i = from; i < to; i++)
		n += put_move(&ops[n], i, set->values[i], up ? HIGHEST : LOWEST);
	return n + put_end(&ops[n], from, set->values[from]);
}

uint32_t ipc_ask(const struct dump *dump, struct plans *plans, uint32_t task)
{
	enum { SHARE = (OPERATIONS - 2) / PROBE };
	struct sembuf ops[OPERATIONS];
	uint32_t slot, first = UINT32_MAX;
	plan_note(plans, "what SEM_UNDO would undo");
	for (size_t i = 0; i < dump->ipc_known.n_sets; i++) {
		const struct sem_known *set = &dump->ipc_known.sets[i];
		for (unsigned from = 0; from < set->nsems; from += SHARE)
			for (int up = 0; up < 2; up++) {
				unsigned to = from + SHARE < set->nsems ? from + SHARE : set->nsems;
				slot = call(plans, task, set->id, ops,
					    put_none(ops, set, from, to, up));
				first = first == UINT32_MAX ? slot : first;
			}
	}
	return first;
}

static int add_search(struct dump *dump, struct process *process, const struct sem_known *set,
		      unsigned number, struct fsnap_error *err)
{
	struct ipc_dump *known = &dump->ipc_known;
	struct sem_search *searches =
		grow(known->searches, known->n_searches, sizeof(*searches), err);
	if (!searches)
		return -1;
	known->searches = searches;
	searches[known->n_searches++] = (struct sem_search){
		.process = process, .set = set, .number = number, .low = LOWEST, .high = HIGHEST
	};
	return 0;
}

int ipc_answer(struct dump *dump, struct process *process, const struct plans *plans,
	       struct ctl *ctl, uint32_t slot, struct fsnap_error *err)
{
	enum { SHARE = (OPERATIONS - 2) / PROBE };
	for (size_t i = 0; i < dump->ipc_known.n_sets; i++) {
		const struct sem_known *set = &dump->ipc_known.sets[i];
		for (unsigned from = 0; from < set->nsems; from += SHARE, slot += 2) {
			unsigned to = from + SHARE < set->nsems ? from + SHARE : set->nsems;
			if (plans_slot(plans, ctl, slot) != -ERANGE &&
			    plans_slot(plans, ctl, slot + 1) != -ERANGE)
				continue;
			for (unsigned number = from; number < to; number++)
				if (add_search(dump, process, set, number, err) < 0)
					return -1;
		}
	}
	return 0;
}

/* --- how much? ------------------------------------------------------------------------------ */

/* The thresholds of a round: most adjustments are small, so the first looks there; later ones cut what
 * is left into equal parts. "Is it at least that?" */
static int thresholds(const struct sem_search *search, int at[AT_ONCE])
{
	int width = search->high - search->low, n = 0;
	if (width == HIGHEST - LOWEST) {
		for (int t = -8; t <= 9; t++)
			at[n++] = t;
		return n;
	}
	int parts = width < AT_ONCE ? width : AT_ONCE;
	for (int i = 1; i <= parts; i++)
		at[n++] = search->low + (int)((long)width * i / parts);
	return n;
}

static void ask_search(struct sem_search *search, struct plans *plans)
{
	int at[AT_ONCE], n = thresholds(search, at);
	unsigned value = search->set->values[search->number];
	for (int i = 0; i < n; i++) {
		struct sembuf ops[PROBE];
		size_t used = put_move(ops, search->number, value, LOWEST - at[i]);
		used += put_end(&ops[used], search->number, value);
		uint32_t slot = call(plans, 0, search->set->id, ops, used);
		search->slot = i == 0 ? slot : search->slot;
	}
}

static void answer_search(struct sem_search *search, const struct plans *plans, struct ctl *ctl)
{
	int at[AT_ONCE], n = thresholds(search, at), low = search->low, high = search->high;
	for (int i = 0; i < n; i++) {
		int64_t result = plans_slot(plans, ctl, search->slot + (uint32_t)i);
		if (result != -EAGAIN && result != -ERANGE) {
			low = high = 0; /* somebody outside has removed the set just now */
			break;
		}
		if (result == -ERANGE) {
			high = at[i] - 1;
			break;
		}
		low = at[i];
	}
	search->low = low;
	search->high = high;
}

/* One round for up to PLACE_BATCH processes, beginning with that of searches[from]; *next is behind them. */
static int round_of(struct dump *dump, size_t from, size_t *next, struct fsnap_error *err)
{
	struct ipc_dump *known = &dump->ipc_known;
	struct placement placements[PLACE_BATCH] = { 0 };
	size_t n = 0, i;
	for (i = from; i < known->n_searches; i++) {
		struct sem_search *search = &known->searches[i];
		if (search->low == search->high)
			continue;
		if (n == 0 || placements[n - 1].process != search->process) {
			if (n == PLACE_BATCH)
				break;
			placements[n] = (struct placement){ .process = search->process, .plans = plans_new(), .alone = true };
			plans_task(placements[n++].plans, search->process->pid,
				   search->process->comm);
		}
		ask_search(search, placements[n - 1].plans);
	}
	*next = i;
	int result = n ? place_run(placements, n, err) : 0;
	for (size_t j = 0, k = from; j < n; j++) {
		for (; result == 0 && k < *next; k++) {
			struct sem_search *search = &known->searches[k];
			if (search->low == search->high)
				continue;
			if (search->process != placements[j].process)
				break;
			answer_search(search, placements[j].plans,
				      placed_ctl(placements[j].placed));
		}
		placed_free(placements[j].placed);
		plans_free(placements[j].plans);
	}
	return result;
}

static int add_undo(struct dump *dump, const struct sem_search *search, struct fsnap_error *err)
{
	image_ipc *ipc = &dump->ipc;
	image_semaphore_undo *undos =
		grow(ipc->undos.undos_val, ipc->undos.undos_len, sizeof(*undos), err);
	if (!undos)
		return -1;
	ipc->undos.undos_val = undos;
	undos[ipc->undos.undos_len++] = (image_semaphore_undo){
		.pid = search->process->pid,
		.id = search->set->id,
		.number = search->number,
		.adjust = search->low,
	};
	return 0;
}

int undo_collect(struct dump *dump, struct fsnap_error *err)
{
	struct ipc_dump *known = &dump->ipc_known;
	bool open = known->n_searches != 0;
	/* Agents go in once more: nobody may be looking for pages there. */
	if (open && finder_end(dump, err) < 0)
		return -1;
	while (open) {
		for (size_t next = 0; next < known->n_searches;)
			if (round_of(dump, next, &next, err) < 0)
				return -1;
		open = false;
		for (size_t i = 0; i < known->n_searches; i++)
			open |= known->searches[i].low != known->searches[i].high;
	}
	for (size_t i = 0; i < known->n_searches; i++)
		if (known->searches[i].low && add_undo(dump, &known->searches[i], err) < 0)
			return -1;
	return 0;
}

bool undo_of_set(const struct dump *dump, int id)
{
	for (u_int i = 0; i < dump->ipc.undos.undos_len; i++)
		if (dump->ipc.undos.undos_val[i].id == id)
			return true;
	return false;
}

/* --- restore ---------------------------------------------------------------------------------- */

static const image_semaphore *find_semaphore(const image_ipc *ipc, int id, unsigned number)
{
	for (u_int i = 0; i < ipc->sets.sets_len; i++) {
		const image_semaphore_set *set = &ipc->sets.sets_val[i];
		if (set->perm.id == id && number < set->semaphores.semaphores_len)
			return &set->semaphores.semaphores_val[number];
	}
	return NULL;
}

/* The values are there by now: SETVAL would forget every adjustment. */
void ipc_rebuild(const struct restore *restore, const image_process *process, uint32_t task)
{
	const image_ipc *ipc = &restore->model.ipc;
	for (u_int i = 0; i < ipc->undos.undos_len; i++) {
		const image_semaphore_undo *undo = &ipc->undos.undos_val[i];
		const image_semaphore *semaphore = find_semaphore(ipc, undo->id, undo->number);
		struct sembuf ops[PROBE];
		if (undo->pid != process->pid || !semaphore)
			continue;
		plan_note(restore->plans, "semaphore %u of set %d: %d to be undone", undo->number,
			  undo->id, undo->adjust);
		size_t n = put_move(ops, undo->number, semaphore->value, undo->adjust);
		plan_call(restore->plans, task, SYS_semop, IMM(undo->id),
			  DATA(plans_data(restore->plans, ops, n * sizeof(*ops), 2)), IMM(n));
	}
}

/* Whoever restored an adjustment was the last at the semaphore; where that was another, it is again. */
void ipc_sign(const struct restore *restore, const image_process *process, uint32_t task)
{
	const image_ipc *ipc = &restore->model.ipc;
	for (u_int i = 0; i < ipc->undos.undos_len; i++) {
		const image_semaphore_undo *undo = &ipc->undos.undos_val[i];
		const image_semaphore *semaphore = find_semaphore(ipc, undo->id, undo->number);
		struct sembuf ops[2];
		if (!semaphore || semaphore->pid != process->pid)
			continue;
		int first = semaphore->value < HIGHEST ? 1 : -1;
		plan_note(restore->plans, "last at semaphore %u of set %d", undo->number, undo->id);
		put(&ops[0], undo->number, first, 0);
		put(&ops[1], undo->number, -first, 0);
		plan_call(restore->plans, task, SYS_semop, IMM(undo->id),
			  DATA(plans_data(restore->plans, ops, sizeof(ops), 2)), IMM(2));
	}
}
