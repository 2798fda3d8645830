#include "restorer/plan.h"

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "restorer/plan_private.h"

#define PAGE 4096u /* of control memory */

/* --- growing ---------------------------------------------------------------- */

/* Room for n more items of `size` bytes, zeroed; NULL: there is no memory. */
static void *list_add(struct list *list, size_t n, size_t size)
{
	if (list->used + n > list->room) {
		size_t room = list->room ? list->room * 2 : 16;
		if (room < list->used + n)
			room = list->used + n;
		void *items = reallocarray(list->items, room, size);
		if (!items)
			return NULL;
		list->items = items;
		list->room = room;
	}
	void *added = (char *)list->items + list->used * size;
	memset(added, 0, n * size);
	list->used += n;
	return added;
}

/* As list_add; remembers in plans when there is no memory. */
static void *add(struct plans *plans, struct list *list, size_t n, size_t size)
{
	void *added = plans->exhausted ? NULL : list_add(list, n, size);
	if (!added)
		plans->exhausted = true;
	return added;
}

struct plans *plans_new(void)
{
	return calloc(1, sizeof(struct plans));
}

void plans_free(struct plans *plans)
{
	if (!plans)
		return;
	for (uint32_t i = 0; i < plans->tasks.used; i++) {
		free(plan_task_at(plans, i)->who);
		free(plan_task_at(plans, i)->ops.items);
	}
	free(plans->tasks.items);
	free(plans->data.items);
	free(plans->items.items);
	free(plans->pointers.items);
	free(plans->notes.items);
	free(plans);
}

uint32_t plans_task(struct plans *plans, int tid, const char *who)
{
	if (!plans)
		return 0;
	char *copy = strdup(who);
	struct plan_task *task = add(plans, &plans->tasks, 1, sizeof(*task));
	if (!task || !copy) {
		plans->exhausted = true;
		free(copy);
		return 0;
	}
	task->tid = tid;
	task->who = copy;
	return (uint32_t)plans->tasks.used - 1;
}

uint32_t plans_task_count(const struct plans *plans)
{
	return plans ? (uint32_t)plans->tasks.used : 0;
}

uint32_t plans_data(struct plans *plans, const void *bytes, size_t n, size_t align)
{
	if (!plans)
		return 0;
	size_t gap = align ? -plans->data.used & (align - 1) : 0;
	plans->align = align > plans->align ? align : plans->align;
	if (n > UINT32_MAX - PAGE || plans->data.used + gap > UINT32_MAX - PAGE - n)
		plans->exhausted = true;
	char *data = add(plans, &plans->data, gap + n, 1);
	struct plan_item *item = add(plans, &plans->items, 1, sizeof(*item));
	if (!data || !item)
		return 0;
	if (bytes)
		memcpy(data + gap, bytes, n);
	item->ref = (uint32_t)(plans->data.used - n);
	item->size = (uint32_t)n;
	return item->ref;
}

void plans_set(struct plans *plans, uint32_t where, const void *bytes, size_t n)
{
	if (plans && !plans->exhausted)
		memcpy((char *)plans->data.items + where, bytes, n);
}

void plans_pointer(struct plans *plans, uint32_t where, uint32_t what)
{
	struct plan_pointer *pointer = plans ? add(plans, &plans->pointers, 1, sizeof(*pointer)) : NULL;
	if (pointer)
		*pointer = (struct plan_pointer){ where, what };
}

void plan_note(struct plans *plans, const char *format, ...)
{
	if (!plans)
		return;
	char text[512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!strcmp(text, plan_note_at(plans, plans->note)))
		return;
	size_t first = plans->notes.used ? 0 : 1; /* offset 0 is "no note" */
	size_t length = strlen(text) + 1;
	char *note = add(plans, &plans->notes, first + length, 1);
	if (!note)
		return;
	memcpy(note + first, text, length);
	plans->note = text[0] ? (uint32_t)(plans->notes.used - length) : 0;
}

/* --- operations ------------------------------------------------------------- */

static struct plan_op *last_op(struct plans *plans)
{
	if (!plans || plans->exhausted || !plans->n_ops)
		return NULL;
	const struct plan_task *task = plan_task_at(plans, plans->last_task);
	return plan_op_at(task, task->ops.used - 1);
}

static void append(struct plans *plans, uint32_t number, uint8_t kind, long nr,
		   const struct arg args[6])
{
	if (!plans || plans->exhausted)
		return;
	assert(number < plans->tasks.used);
	struct plan_op *op = add(plans, &plan_task_at(plans, number)->ops, 1, sizeof(*op));
	if (!op)
		return;
	plans->last_task = number;
	plans->n_ops++;
	op->kind = kind;
	op->nr = (uint32_t)nr;
	op->note = plans->note;
	for (int i = 0; i < 6; i++) {
		op->arg_kind[i] = args[i].kind;
		op->arg[i] = args[i].value;
	}
}

#define APPEND(plans, task, kind, ...) \
	append((plans), (task), (kind), 0, (struct arg[6]){ __VA_ARGS__ })

void plan_call_args(struct plans *plans, uint32_t task, long nr, const struct arg args[6])
{
	append(plans, task, PLAN_SYSCALL, nr, args);
}

void plan_accept_equal(struct plans *plans, int64_t expected)
{
	struct plan_op *op = last_op(plans);
	if (!op)
		return;
	op->accept = ACCEPT_EQUAL;
	op->expected = expected;
}

void plan_accept_any(struct plans *plans)
{
	struct plan_op *op = last_op(plans);
	if (op)
		op->accept = ACCEPT_ANY;
}

void plan_accept(struct plans *plans, struct arg value)
{
	struct plan_op *op = last_op(plans);
	if (!op)
		return;
	op->accept = value.kind == ARG_SLOT ? ACCEPT_SLOT : ACCEPT_EQUAL;
	op->expected = (int64_t)value.value;
}

uint32_t plan_result(struct plans *plans)
{
	struct plan_op *op = last_op(plans);
	if (!op)
		return 0;
	if (!op->result)
		op->result = ++plans->n_slots;
	return op->result - 1;
}

uint32_t plans_input(struct plans *plans)
{
	return plans ? plans->n_slots++ : 0;
}

void plan_copy(struct plans *plans, uint32_t task, struct arg to, struct arg from, uint64_t bytes)
{
	APPEND(plans, task, PLAN_COPY, to, from, IMM(bytes));
}

uint32_t plan_load(struct plans *plans, uint32_t task, struct arg from)
{
	uint32_t slot = plans_input(plans);
	APPEND(plans, task, PLAN_COPY, (struct arg){ ARG_SLOT_PLACE, slot }, from, IMM(8));
	return slot;
}

void plan_post(struct plans *plans, uint32_t task, uint32_t barrier, uint32_t add)
{
	APPEND(plans, task, PLAN_POST, IMM(barrier), IMM(add));
}

void plan_post_one_of(struct plans *plans, uint32_t task, uint32_t barrier, uint32_t all)
{
	APPEND(plans, task, PLAN_POST, IMM(barrier), IMM(1), IMM(all));
}

void plan_wait(struct plans *plans, uint32_t task, uint32_t barrier, uint32_t at_least)
{
	APPEND(plans, task, PLAN_WAIT, IMM(barrier), IMM(at_least));
}

void plan_fork(struct plans *plans, uint32_t task, uint32_t child_task, int exit_signal)
{
	APPEND(plans, task, PLAN_FORK, IMM(child_task), IMM(exit_signal));
}

void plan_fork_flags(struct plans *plans, uint64_t flags)
{
	struct plan_op *op = last_op(plans);
	if (op)
		op->arg[2] = flags;
}

void plan_thread(struct plans *plans, uint32_t task, uint32_t thread_task)
{
	APPEND(plans, task, PLAN_THREAD, IMM(thread_task));
}

void plan_helper(struct plans *plans, uint32_t task, uint32_t helper_task)
{
	APPEND(plans, task, PLAN_HELPER, IMM(helper_task));
	plan_accept_any(plans);
}

void plan_join(struct plans *plans, uint32_t task, uint32_t helper_task)
{
	APPEND(plans, task, PLAN_JOIN, IMM(helper_task));
}

void plan_helper_apart(struct plans *plans, uint32_t task, uint32_t helper_task)
{
	APPEND(plans, task, PLAN_HELPER, IMM(helper_task), IMM(1));
	plan_accept_any(plans);
}

void plan_join_apart(struct plans *plans, uint32_t task, uint32_t helper_task)
{
	APPEND(plans, task, PLAN_JOIN, IMM(helper_task), IMM(1));
	plan_accept_any(plans);
}

uint32_t plans_operations(const struct plans *plans, uint32_t task)
{
	return plans && !plans->exhausted ? (uint32_t)plan_task_at(plans, task)->ops.used : 0;
}

uint32_t plans_stretches(struct plans *plans, uint32_t shared, const uint32_t *first, uint32_t n)
{
	const struct plan_stretches head = { .n = n };
	uint32_t end = plans_operations(plans, shared), all = n * (uint32_t)sizeof(*first);
	uint32_t where = plans_data(plans, NULL, sizeof(head) + all + sizeof(end), 8);
	plans_set(plans, where, &head, sizeof(head));
	plans_set(plans, where + (uint32_t)sizeof(head), first, all);
	plans_set(plans, where + (uint32_t)sizeof(head) + all, &end, sizeof(end));
	return where;
}

void plan_share(struct plans *plans, uint32_t task, uint32_t shared, uint32_t stretches)
{
	APPEND(plans, task, PLAN_SHARE, IMM(shared), DATA(stretches));
}

void plan_borrow(struct plans *plans, uint32_t task, uint32_t ready, uint32_t sent)
{
	APPEND(plans, task, PLAN_SOCKETS, IMM(0));
	plan_accept_any(plans);
	plan_post(plans, task, ready, 1);
	plan_wait(plans, task, sent, 1);
	plan_accept_any(plans);
	APPEND(plans, task, PLAN_BORROW, IMM(0));
	plan_accept_any(plans);
}

void plan_give_back(struct plans *plans, uint32_t task)
{
	APPEND(plans, task, PLAN_GIVE_BACK, IMM(0));
	plan_accept_any(plans);
}

void plan_bulk(struct plans *plans, uint32_t task, uint32_t bulk)
{
	APPEND(plans, task, PLAN_BULK, DATA(bulk));
	plan_accept_any(plans);
}

void plan_park(struct plans *plans, uint32_t task, uint32_t until_release)
{
	APPEND(plans, task, PLAN_PARK, IMM(until_release));
}

void plan_keep(struct plans *plans, uint32_t task, uint64_t where)
{
	APPEND(plans, task, PLAN_KEEP, IMM(where));
}

void plan_decimal(struct plans *plans, uint32_t task, struct arg to, struct arg value)
{
	APPEND(plans, task, PLAN_DECIMAL, to, value);
}
