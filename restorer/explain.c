/*
 * explain.c - plans in words: as a listing, and as the message of the step that failed.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "restorer/plan.h"
#include "restorer/plan_private.h"
#include "restorer/syscall_names.h"

#define AT_CWD (-100) /* AT_FDCWD: the one small number everybody knows by name */

struct text { /* a line being written; what does not fit is left out */
	char at[512];
	size_t used;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *text, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text->at + text->used, sizeof(text->at) - text->used, format, args);
	va_end(args);
	if (n > 0)
		text->used += (size_t)n;
	if (text->used >= sizeof(text->at))
		text->used = sizeof(text->at) - 1;
}

/* --- arguments -------------------------------------------------------------------- */

static void say_number(struct text *text, uint64_t value)
{
	int64_t number = (int64_t)value;
	if (number > -65536 && number < 65536)
		say(text, "%" PRId64, number);
	else
		say(text, "%#" PRIx64, value);
}

/* The item that a reference points into. */
static const struct plan_item *find_item(const struct plans *plans, uint64_t ref)
{
	const struct plan_item *items = plans->items.items;
	size_t low = 0, high = plans->items.used;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (items[middle].ref + items[middle].size <= ref)
			low = middle + 1;
		else
			high = middle;
	}
	return low < plans->items.used && items[low].ref <= ref ? &items[low] : NULL;
}

/* What a reference points to, if it is a string: printable to the end, where the only NUL is. */
static const char *find_string(const struct plans *plans, uint64_t ref)
{
	const struct plan_item *item = find_item(plans, ref);
	if (!item)
		return NULL;
	const char *string = (const char *)plans->data.items + ref;
	size_t length = item->ref + item->size - ref - 1;
	if (length < 2 || string[length] || strlen(string) != length)
		return NULL;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)string[i] < ' ' || string[i] == 127)
			return NULL;
	return string;
}

/* ctl: slots have values by now; NULL: they are names. */
static void say_arg(struct text *text, const struct plans *plans, struct ctl *ctl, uint8_t kind,
		    uint64_t value)
{
	const char *string;
	switch (kind) {
	case ARG_CTL:
		say(text, "data+%#" PRIx64, value);
		if ((string = find_string(plans, value)))
			say(text, " \"%s\"", string);
		break;
	case ARG_SLOT_PLACE:
		say(text, "$%" PRIu64, value);
		break;
	case ARG_TID_PLACE:
		say(text, "the number of task %" PRIu64, value);
		break;
	case ARG_SLOT:
		say(text, "$%" PRIu64, value);
		if (ctl)
			say(text, "=%" PRId64, plans_slot(plans, ctl, (uint32_t)value));
		break;
	default:
		say_number(text, value);
	}
}

/* --- operations ---------------------------------------------------------------------- */

static bool takes_nothing(uint32_t nr)
{
	switch (nr) {
	case SYS_getpid: case SYS_gettid: case SYS_getppid: case SYS_setsid: case SYS_getuid:
	case SYS_getgid: case SYS_geteuid: case SYS_getegid: case SYS_getpgrp: case SYS_pause:
	case SYS_sched_yield: case SYS_munlockall: case SYS_inotify_init: case SYS_rt_sigreturn:
	case SYS_restart_syscall: case SYS_vhangup: case SYS_fork: case SYS_vfork: case SYS_sync:
		return true;
	}
	return false;
}

/* An operation does not say how many arguments its call has: trailing zeroes are not worth
 * their place, but for the first one. */
static int count_args(const struct plan_op *op)
{
	int n = 6;
	while (n > 1 && op->arg_kind[n - 1] == ARG_IMMEDIATE && !op->arg[n - 1])
		n--;
	return n == 1 && takes_nothing(op->nr) ? 0 : n;
}

static void say_call(struct text *text, const struct plans *plans, struct ctl *ctl,
		     const struct plan_op *op)
{
	const char *name = syscall_name(op->nr);
	if (name)
		say(text, "%s(", name);
	else
		say(text, "syscall_%u(", op->nr);
	int n = count_args(op);
	for (int i = 0; i < n; i++) {
		if (i)
			say(text, ", ");
		if (i == 0 && op->arg_kind[0] == ARG_IMMEDIATE && (int)op->arg[0] == AT_CWD)
			say(text, "AT_FDCWD");
		else
			say_arg(text, plans, ctl, op->arg_kind[i], op->arg[i]);
	}
	say(text, ")");
}

static const char *who_is(const struct plans *plans, uint64_t task)
{
	return task < plans->tasks.used ? plan_task_at(plans, (uint32_t)task)->who : "nobody";
}

static void say_op(struct text *text, const struct plans *plans, struct ctl *ctl,
		   const struct plan_op *op)
{
	switch (op->kind) {
	case PLAN_SYSCALL:
		say_call(text, plans, ctl, op);
		break;
	case PLAN_COPY:
		say(text, "copy ");
		say_number(text, op->arg[2]);
		say(text, " bytes to ");
		say_arg(text, plans, ctl, op->arg_kind[0], op->arg[0]);
		say(text, " from ");
		say_arg(text, plans, ctl, op->arg_kind[1], op->arg[1]);
		break;
	case PLAN_POST:
		say(text, "post %" PRIu64 " to barrier %" PRIu64, op->arg[1], op->arg[0]);
		if (op->arg[2])
			say(text, " of %" PRIu64, op->arg[2]);
		break;
	case PLAN_WAIT:
		say(text, "wait until barrier %" PRIu64 " is %" PRIu64, op->arg[0], op->arg[1]);
		break;
	case PLAN_FORK:
		say(text, "fork %s", who_is(plans, op->arg[0]));
		if (op->arg[2])
			say(text, " with flags %#" PRIx64, op->arg[2]);
		break;
	case PLAN_THREAD:
	case PLAN_HELPER:
		say(text, "start %s", who_is(plans, op->arg[0]));
		break;
	case PLAN_JOIN:
		say(text, "wait for the end of %s", who_is(plans, op->arg[0]));
		break;
	case PLAN_SHARE:
		say(text, "take part: %s", who_is(plans, op->arg[0]));
		break;
	case PLAN_SOCKETS:
		say(text, "make a socket to borrow by");
		break;
	case PLAN_BORROW:
		say(text, "borrow a descriptor");
		break;
	case PLAN_GIVE_BACK:
		say(text, "give the borrowed descriptor back");
		break;
	case PLAN_BULK:
		say(text, "take part: copying pages");
		break;
	case PLAN_PARK:
		say(text, "park until release %" PRIu64, op->arg[0]);
		break;
	case PLAN_KEEP:
		say(text, "bear others on order");
		break;
	case PLAN_DECIMAL:
		say(text, "write ");
		say_arg(text, plans, ctl, op->arg_kind[1], op->arg[1]);
		say(text, " as text to ");
		say_arg(text, plans, ctl, op->arg_kind[0], op->arg[0]);
		break;
	default:
		say(text, "unknown operation %u", op->kind);
	}
}

static void say_expected(struct text *text, const struct plan_op *op)
{
	if (op->accept == ACCEPT_EQUAL)
		say(text, " = %" PRId64, op->expected);
	if (op->accept == ACCEPT_SLOT)
		say(text, " = $%" PRId64, op->expected);
	if (op->accept == ACCEPT_ANY)
		say(text, " = any");
	if (op->result)
		say(text, " -> $%u", op->result - 1);
}

void plans_explain(const struct plans *plans, FILE *out)
{
	for (uint32_t i = 0; i < plans_task_count(plans); i++) {
		const struct plan_task *task = plan_task_at(plans, i);
		fprintf(out, "%s%s: %zu operations\n", i ? "\n" : "", task->who, task->ops.used);
		for (size_t pc = 0; pc < task->ops.used; pc++) {
			const struct plan_op *op = plan_op_at(task, pc);
			struct text text = { .used = 0 };
			say_op(&text, plans, NULL, op);
			say_expected(&text, op);
			const char *note = plan_note_at(plans, op->note);
			fprintf(out, *note ? "%6zu  %-60s  %s\n" : "%6zu  %s\n", pc, text.at, note);
		}
	}
}

/* --- failures -------------------------------------------------------------------------- */

/* The task that failed first; any that failed if ctl does not say; NULL: none did. */
static const struct ctl_task *find_failed(struct ctl *ctl, uint32_t *number)
{
	if (ctl->failed > 0 && ctl->failed <= ctl->n_tasks) {
		*number = ctl->failed - 1;
		return ctl_task(ctl, *number);
	}
	for (*number = 0; *number < ctl->n_tasks; ++*number)
		if (ctl_task(ctl, *number)->state == TASK_FAILED)
			return ctl_task(ctl, *number);
	return NULL;
}

int plans_failure(const struct plans *plans, struct ctl *ctl, int code, struct fsnap_error *err)
{
	uint32_t number;
	const struct ctl_task *failed = find_failed(ctl, &number);
	if (!failed)
		return fail(err, code, 0, "a plan failed, and none of its tasks says why");
	const struct plan_task *task = plan_task_at(plans, number);
	if (failed->pc >= task->ops.used)
		return fail(err, code, 0, "%s: failed past the end of its plan", task->who);

	const struct plan_op *op = plan_op_at(task, failed->pc);
	const char *note = plan_note_at(plans, op->note);
	int64_t result = failed->result;
	bool is_errno = result < 0 && result >= -4095;
	struct text text = { .used = 0 };
	say_op(&text, plans, ctl, op);
	if (!is_errno)
		say(&text, " gave %" PRId64 " instead of %" PRId64, result, op->expected);
	return fail(err, code, is_errno ? (int)-result : 0, "%s: step %u%s%s%s: %s", task->who,
		    failed->pc, *note ? " (" : "", note, *note ? ")" : "", text.at);
}
