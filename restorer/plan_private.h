/*
 * plan_private.h - what a `plans` object is made of: plan.c builds it, explain.c
 * prints it.  Nobody else includes this.
 *
 * Operations are kept as the agent will see them, but for three things: ARG_CTL
 * arguments are references into `data`, ARG_SLOT_PLACE and ARG_TID_PLACE are not yet
 * addresses, and notes are offsets in `notes`.
 * plans_write() turns them into offsets in control memory.
 */
#ifndef RESTORER_PLAN_PRIVATE_H
#define RESTORER_PLAN_PRIVATE_H

#include <stdbool.h>

#include "restorer/plan.h"

/* Beside enum plan_arg, and only until plans_write(): the address of slot number `value`. */
#define ARG_SLOT_PLACE 128
#define ARG_TID_PLACE 129 /* likewise, of ctl_task.tid of task number `value` */

struct list { /* a growing array of anything */
	void *items;
	size_t used, room; /* items, not bytes */
};

struct plan_task {
	int tid;
	char *who;
	struct list ops; /* struct plan_op */
};

struct plan_item { /* one plans_data() */
	uint32_t ref, size;
};

struct plan_pointer { /* one plans_pointer() */
	uint32_t where, what;
};

struct plans {
	struct list tasks; /* struct plan_task */
	struct list data;  /* bytes */
	size_t align;	   /* the most that was asked for any of them */
	struct list items; /* struct plan_item, by ref */
	struct list pointers; /* struct plan_pointer */
	struct list notes; /* bytes: texts that end in NUL; the first is empty */
	uint32_t note;	   /* that of the operations added next */
	uint32_t n_ops;	   /* of all tasks */
	uint32_t n_slots;
	uint32_t last_task; /* whose operation was appended last */
	plan_find_fn find;  /* plans_number_late(); NULL: numbers are kept */
	const void *find_arg;
	bool exhausted;	    /* memory, or the 4 GiB that offsets can name, ran out */
};

static inline struct plan_task *plan_task_at(const struct plans *plans, uint32_t task)
{
	return (struct plan_task *)plans->tasks.items + task;
}

static inline struct plan_op *plan_op_at(const struct plan_task *task, size_t op)
{
	return (struct plan_op *)task->ops.items + op;
}

static inline const char *plan_note_at(const struct plans *plans, uint32_t note)
{
	return note ? (const char *)plans->notes.items + note : "";
}

#endif
