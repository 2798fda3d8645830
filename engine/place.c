#include "engine/place.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/placed.h"
#include "engine/trace.h"

struct ctl *placed_ctl(struct placed *placed)
{
	return placed->map ? (struct ctl *)((char *)placed->map + AGENT_TEXT) : NULL;
}

/* --- in ---------------------------------------------------------------------------- */

static int for_all(struct placement *all, size_t n, int (*step)(struct placed *, struct fsnap_error *),
		   struct fsnap_error *err)
{
	for (size_t i = 0; i < n; i++)
		if (step(all[i].placed, err) < 0)
			return error_context(err, "process %d (%s)", all[i].process->pid, all[i].process->comm);
	return 0;
}

/* The other threads follow as they are sent in: up to there they stand in the calls they were in, and whatever signal
 * comes for them meets them there, even if we die. */
static int get_ready(struct placed *placed, struct fsnap_error *err)
{
	struct process *process = placed->process;
	if (placed->ready)
		return 0;
	if (home_lay(process, placed->homes, placed->n, err) < 0)
		return -1;
	placed->ready = true;
	if (process->text.syscall_ret && process->text.sigreturn)
		placed->chain = placed->homes[0].frame - sizeof(uint64_t);
	/* without a chain: window W1 */
	return talk_turn_home(placed, 0, err);
}

/* Whatever becomes of it: the plan goes on, and with it what it undoes. */
static int do_meanwhile(struct placement *all, size_t n, struct fsnap_error *err)
{
	int result = 0;
	for (size_t i = 0; i < n; i++) {
		if (!all[i].meanwhile)
			continue;
		if (talk_await_ready(all[i].placed, err) < 0)
			return -1;
		if (all[i].meanwhile(&all[i], err) < 0)
			result = -1;
		talk_go_on(all[i].placed);
	}
	return result;
}

typedef int (*aside_fn)(struct placement *placement, struct fsnap_error *err);

static int enter(struct placement *all, size_t n, struct fsnap_error *err)
{
	if (for_all(all, n, get_ready, err) < 0)
		return -1;
	if (stages_in(all, n, err) < 0 || for_all(all, n, talk_send_leader, err) < 0 ||
	    for_all(all, n, talk_send_threads, err) < 0)
		return -1;
	int result = do_meanwhile(all, n, err);
	for (size_t i = 0; i < n && result == 0; i++)
		result = all[i].running ? all[i].running(&all[i], err) : 0;
	return for_all(all, n, talk_await_answers, err) < 0 ? -1 : result;
}

/* --- out ------------------------------------------------------------------------- */

static int interrupt(struct placed *placed, struct fsnap_error *err)
{
	(void)err;
	for (size_t i = 0; i < placed->n; i++)
		if (!placed->process->tasks[i]->stopped)
			trace_interrupt(placed->process->tasks[i]);
	return 0;
}

static int await_stops(struct placed *placed, struct fsnap_error *err)
{
	for (size_t i = 0; i < placed->n; i++) {
		struct task *task = placed->process->tasks[i];
		if (!task->stopped && task->seized && trace_check(trace_await_stop(task, err), task, err) < 0)
			return -1;
	}
	return 0;
}

/* It runs no instruction of the agent any more, whatever becomes of us. */
static void count_out(struct placed *placed)
{
	if (placed->base && placed_ctl(placed)->inside > 0)
		placed_ctl(placed)->inside--;
}

/* While the agent's text is still there: one that died behind munmap() would take the target along. Before it
 * gets its mask a thread leaves the agent's stack, which has no room for handlers of signals. */
static int put_threads_back(struct placed *placed, struct fsnap_error *err)
{
	(void)err;
	for (size_t i = 1; i < placed->n; i++) {
		struct task *task = placed->process->tasks[i];
		bool was_away = task->away;
		bool led = placed->chain && placed->sent && task->stopped && was_away &&
			   talk_lead_home(placed, i, NULL) == 0;
		if (led)
			count_out(placed);
		trace_bring_back(task);
		if (was_away && !led && !task->away)
			count_out(placed);
	}
	return 0;
}

static int put_back(struct placed *placed, struct fsnap_error *err)
{
	(void)err;
	for (size_t i = 1; i <= placed->n; i++) /* the leader last: home.c, choose_places() */
		trace_bring_back(placed->process->tasks[i % placed->n]);
	home_take(placed->process, placed->homes, placed->n);
	return 0;
}

/* Undoes everything enter() did, in whatever state it was left. */
static int leave(struct placement *all, size_t n, bool well, struct fsnap_error *err)
{
	int result = 0;
	for_all(all, n, interrupt, err);
	for (size_t i = 0; i < n && well && result == 0; i++)
		result = all[i].leaving ? all[i].leaving(&all[i], err) : 0;
	for (size_t i = 0; i < n; i++)
		if (await_stops(all[i].placed, err) < 0)
			result = -1;
	for_all(all, n, put_threads_back, err);
	if (stages_out(all, n, err) < 0)
		result = -1;
	for_all(all, n, put_back, err);
	for (size_t i = 0; i < n; i++)
		stages_let_go(all[i].placed);
	return result;
}

/* --- the whole --------------------------------------------------------------------- */

static struct placed *placed_new(struct placement *placement, bool by_address, struct fsnap_error *err)
{
	struct placed *placed = calloc(1, sizeof(*placed));
	size_t n = placement->alone ? 1 : placement->process->n_tasks;
	struct home *homes = calloc(n, sizeof(*homes));
	if (!placed || !homes) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "placing the agent");
		free(placed);
		free(homes);
		return NULL;
	}
	*placed = (struct placed){ .process = placement->process, .n = n, .homes = homes, .by_address = by_address,
				   .remote_memfd = -1 };
	return placed;
}

/* Where it cannot be begun now, it is begun when the plans are there. */
int place_begin(struct placement *placement, struct fsnap_error *err)
{
	struct fsnap_error why = { 0 };
	struct placed *placed = placement->placed = placed_new(placement, stages_by_address(), err);
	if (!placed)
		return -1;
	if (!placed->by_address)
		return 0;
	if (get_ready(placed, &why) == 0 && stages_begin(placed, &why) == 0)
		return 0;
	put_back(placed, NULL);
	home_forget(placed->homes, placed->n);
	placed->ready = false;
	return 0;
}

int place_enter(struct placement *placement, struct fsnap_error *err)
{
	struct task *task = leader(placement->placed);
	return trace_check(trace_call_enter(task, err), task, err);
}

/* Who is in the midst of his plan may have to undo what it has begun. */
static void end_plans(struct placement *all, size_t n)
{
	bool goes_on[PLACE_BATCH];
	for (size_t i = 0; i < n; i++)
		goes_on[i] = all[i].placed->sent && talk_send_threads(all[i].placed, NULL) == 0;
	for (size_t i = 0; i < n; i++)
		if (goes_on[i])
			talk_await_answers(all[i].placed, NULL);
}

void place_give_up(struct placement *all, size_t n)
{
	while (n && !all[n - 1].placed) /* it has not come to these */
		n--;
	for (size_t i = 0; i < n; i++)
		stages_give_up(all[i].placed);
	end_plans(all, n);
	leave(all, n, false, NULL);
}

static void add_plans(struct placed *placed, struct plans *plans)
{
	if (placed->plans)
		return;
	placed->plans = plans;
	plan_note(plans, "close the descriptor of control memory");
	placed->memfd_slot = plans_input(plans);
	plan_call(plans, 0, SYS_close, SLOT(placed->memfd_slot));
	plan_accept_any(plans); /* there may be none */
	if (!trace_call_pending(leader(placed)))
		placed->size = AGENT_TEXT + plans_size(plans);
}

int place_send(struct placement *placement, struct fsnap_error *err)
{
	struct placed *placed = placement->placed;
	bool begun = trace_call_pending(leader(placed));
	add_plans(placed, placement->plans);
	if (!begun)
		return 0;
	if (stages_go_on(placed, err) < 0 || (placed->base && talk_send_leader(placed, err) < 0))
		return error_context(err, "process %d (%s)", placed->process->pid, placed->process->comm);
	return 0;
}

int place_run(struct placement *all, size_t n, struct fsnap_error *err)
{
	assert(n <= PLACE_BATCH);
	for (size_t i = 0; i < n; i++) {
		if (!all[i].placed && !(all[i].placed = placed_new(&all[i], stages_by_address(), err)))
			return -1;
		add_plans(all[i].placed, all[i].plans);
	}
	int result = enter(all, n, err);
	return leave(all, n, result == 0, err) < 0 ? -1 : result;
}

void placed_free(struct placed *placed)
{
	if (!placed)
		return;
	if (placed->map)
		munmap(placed->map, placed->size);
	if (placed->homes)
		home_free(placed->homes, placed->n);
	free(placed);
}

void placed_retire(struct placed *placed, struct placed **list)
{
	if (!placed)
		return;
	home_free(placed->homes, placed->n);
	placed->homes = NULL;
	placed->next = *list;
	*list = placed;
}

void placed_free_retired(struct placed **list)
{
	for (struct placed *placed; (placed = *list);) {
		*list = placed->next;
		placed_free(placed);
	}
}
