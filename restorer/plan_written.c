/*
 * plan_written.c - plans as the agent reads them: laid out in control memory, which starts with struct ctl.
 */
#include <stddef.h>
#include <string.h>

#include "restorer/plan.h"
#include "restorer/plan_private.h"

#define PAGE 4096u

/* Where everything lies, in bytes from struct ctl. Data are aligned as the most demanding of them. Nobody pays for
 * pages that only keep things apart: each that is touched costs a target some microseconds. */
struct layout {
	size_t tasks, ops, slots, notes, data, stacks, end;
};

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static struct layout lay_out(const struct plans *plans)
{
	struct layout at;
	at.tasks = round_up(sizeof(struct ctl), 64);
	at.ops = round_up(at.tasks + plans->tasks.used * sizeof(struct ctl_task), 64);
	at.slots = at.ops + plans->n_ops * sizeof(struct plan_op);
	at.notes = at.slots + plans->n_slots * sizeof(int64_t);
	at.data = round_up(at.notes + plans->notes.used, plans->align > 64 ? plans->align : 64);
	at.stacks = round_up(at.data + plans->data.used, 64);
	at.end = round_up(at.stacks + plans->tasks.used * AGENT_STACK, PAGE);
	return at;
}

size_t plans_size(const struct plans *plans)
{
	return plans ? lay_out(plans).end : PAGE;
}

static void write_op(struct plan_op *to, const struct plan_op *from, const struct layout *at)
{
	*to = *from;
	if (from->note)
		to->note = (uint32_t)(at->notes + from->note);
	for (int i = 0; i < 6; i++)
		if (from->arg_kind[i] == ARG_CTL) {
			to->arg[i] = at->data + from->arg[i];
		} else if (from->arg_kind[i] == ARG_SLOT_PLACE) {
			to->arg_kind[i] = ARG_CTL;
			to->arg[i] = at->slots + from->arg[i] * sizeof(int64_t);
		} else if (from->arg_kind[i] == ARG_TID_PLACE) {
			to->arg_kind[i] = ARG_CTL;
			to->arg[i] = at->tasks + from->arg[i] * sizeof(struct ctl_task) +
				     offsetof(struct ctl_task, tid);
		}
}

static void write_tasks(const struct plans *plans, struct ctl *ctl, const struct layout *at)
{
	uint32_t next = 0;
	for (uint32_t i = 0; i < plans->tasks.used; i++) {
		const struct plan_task *task = plan_task_at(plans, i);
		struct ctl_task *to = ctl_task(ctl, i);
		to->tid = plans->find ? 0 : task->tid;
		to->stack = (uint32_t)(at->stacks + (i + 1) * AGENT_STACK);
		to->first_op = next;
		to->n_ops = (uint32_t)task->ops.used;
		for (size_t op = 0; op < task->ops.used; op++)
			write_op(ctl_op(ctl, next++), plan_op_at(task, op), at);
	}
}

static void write_pointers(const struct plans *plans, struct ctl *ctl, const struct layout *at,
			   uint64_t there)
{
	const struct plan_pointer *pointers = plans->pointers.items;
	for (size_t i = 0; i < plans->pointers.used; i++) {
		uint64_t address = there + at->data + pointers[i].what;
		memcpy((char *)ctl + at->data + pointers[i].where, &address, sizeof(address));
	}
}

int plans_write(struct plans *plans, struct ctl *ctl, uint64_t base, struct fsnap_error *err)
{
	if (!plans || plans->exhausted)
		return fail(err, FSNAP_E_NOMEM, 0, "building a plan");
	struct layout at = lay_out(plans);
	if (at.end > UINT32_MAX)
		return fail(err, FSNAP_E_NOMEM, 0, "a plan of %zu bytes is more than it can name", at.end);
	*ctl = (struct ctl){
		.magic = CTL_MAGIC,
		.base = base,
		.size = AGENT_TEXT + at.end,
		.n_tasks = (uint32_t)plans->tasks.used,
		.tasks = (uint32_t)at.tasks,
		.n_ops = plans->n_ops,
		.ops = (uint32_t)at.ops,
		.n_slots = plans->n_slots,
		.slots = (uint32_t)at.slots,
		.lent = { -1, -1, -1 },
	};
	write_tasks(plans, ctl, &at);
	if (plans->notes.used)
		memcpy((char *)ctl + at.notes, plans->notes.items, plans->notes.used);
	if (plans->data.used)
		memcpy((char *)ctl + at.data, plans->data.items, plans->data.used);
	write_pointers(plans, ctl, &at, base + AGENT_TEXT);
	return 0;
}

void *plans_data_at(const struct plans *plans, struct ctl *ctl, uint32_t ref)
{
	return (char *)ctl + lay_out(plans).data + ref;
}

int64_t plans_slot(const struct plans *plans, struct ctl *ctl, uint32_t slot)
{
	(void)plans;
	return *ctl_slot(ctl, slot);
}
