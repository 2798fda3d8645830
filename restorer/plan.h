/*
 * plan.h - building plans for the agent (parasite/plan.h), in ordinary memory.
 *
 * A `plans` object collects the operations of any number of tasks and the data
 * they point to.  When complete it is laid out into control memory, run there,
 * and its results are read back.  It can be printed, and a failure in control
 * memory can be turned into an error that names task, step and cause.
 *
 *	struct plans *plans = plans_new();
 *	uint32_t task = plans_task(plans, 1234, "process 1234 (redis-server)");
 *	uint32_t buf = plans_data(plans, NULL, 16, 8);
 *	plan_note(plans, "limits of open files");
 *	plan_call(plans, task, SYS_prlimit64, IMM(0), IMM(RLIMIT_NOFILE), IMM(0), DATA(buf));
 *
 * Running out of memory is remembered and reported by plans_write(); builders
 * need not check each call.
 */
#ifndef RESTORER_PLAN_H
#define RESTORER_PLAN_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "parasite/plan.h"
#include "store/error.h"

struct plans;

struct arg { /* as the agent takes it (enum plan_arg), but that ARG_CTL counts from the first plans_data() */
	uint8_t kind;
	uint64_t value;
};

#define IMM(v) ((struct arg){ ARG_IMMEDIATE, (uint64_t)(v) })
#define DATA(ref) ((struct arg){ ARG_CTL, (ref) })    /* address of data, in the task */
#define SLOT(number) ((struct arg){ ARG_SLOT, (number) }) /* result of an earlier operation */

struct plans *plans_new(void);
void plans_free(struct plans *plans);

/* Adds a task; tid is the PID or TID it shall get, 0: any. `who` is how people call it ("process
 * 12 (redis-server)"); copied. Returns its number, from 0 in order of creation. */
uint32_t plans_task(struct plans *plans, int tid, const char *who);
uint32_t plans_task_count(const struct plans *plans);

/* Reserves n bytes in control memory (bytes == NULL: zeroes), aligned; returns a reference for DATA(). */
uint32_t plans_data(struct plans *plans, const void *bytes, size_t n, size_t align);

/* Writes into data that was added before. */
void plans_set(struct plans *plans, uint32_t where, const void *bytes, size_t n);

/* Stores in the 8 bytes of data at `where` the address that `what` has in the tasks. */
void plans_pointer(struct plans *plans, uint32_t where, uint32_t what);

/* Says in words what the operations added next are for, until the next note. printf-like. */
void plan_note(struct plans *plans, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends a system call to the task's plan; any result but -errno is accepted. */
#define plan_call(plans, task, nr, ...) \
	plan_call_args((plans), (task), (nr), (struct arg[6]){ __VA_ARGS__ })
void plan_call_args(struct plans *plans, uint32_t task, long nr, const struct arg args[6]);

/* About the operation appended last: */
void plan_accept_equal(struct plans *plans, int64_t expected);
void plan_accept_any(struct plans *plans);
uint32_t plan_result(struct plans *plans); /* keep its result; returns the slot */

/* A slot that the engine itself fills in control memory before the plan runs. */
uint32_t plans_input(struct plans *plans);

/* Keeps the 8 bytes at an address as a result, for later operations; returns the slot. */
uint32_t plan_load(struct plans *plans, uint32_t task, struct arg from);
void plan_copy(struct plans *plans, uint32_t task, struct arg to, struct arg from, uint64_t bytes);
void plan_post(struct plans *plans, uint32_t task, uint32_t barrier, uint32_t add);
/* One of `all` that each post once, where nobody waits for fewer. */
void plan_post_one_of(struct plans *plans, uint32_t task, uint32_t barrier, uint32_t all);
void plan_wait(struct plans *plans, uint32_t task, uint32_t barrier, uint32_t at_least);
void plan_fork(struct plans *plans, uint32_t task, uint32_t child_task, int exit_signal);
void plan_fork_flags(struct plans *plans, uint64_t flags); /* of the fork appended last: CLONE_* */
void plan_thread(struct plans *plans, uint32_t task, uint32_t thread_task);
/* A thread that takes part in the work and ends; where it cannot be had, the others do it. plan_join() waits
 * until it is gone. */
void plan_helper(struct plans *plans, uint32_t task, uint32_t helper_task);
void plan_join(struct plans *plans, uint32_t task, uint32_t helper_task);
/* The same of one that is a process, so that its faults are its own. */
void plan_helper_apart(struct plans *plans, uint32_t task, uint32_t helper_task);
void plan_join_apart(struct plans *plans, uint32_t task, uint32_t helper_task);

/* Takes part in the plan of `shared`, which is nobody's own and consists of system calls: in stretches that
 * begin at first[0..n), its operations counted from 0 (plans_operations()); the last ends with the plan.
 * plans_stretches() makes the list of them, once, when that plan is complete. */
uint32_t plans_operations(const struct plans *plans, uint32_t task);
uint32_t plans_stretches(struct plans *plans, uint32_t shared, const uint32_t *first, uint32_t n);
void plan_share(struct plans *plans, uint32_t task, uint32_t shared, uint32_t stretches);

/* Borrows a descriptor of the engine, who sends it between the barriers `ready` and `sent`, and gives it back. Where
 * it does not get one, what needs it does nothing. */
void plan_borrow(struct plans *plans, uint32_t task, uint32_t ready, uint32_t sent);
void plan_give_back(struct plans *plans, uint32_t task);

/* Copies what the struct plan_bulk says that is at `bulk`; for helpers only. */
void plan_bulk(struct plans *plans, uint32_t task, uint32_t bulk);

void plan_park(struct plans *plans, uint32_t task, uint32_t until_release);

/* Bears others on order, for as long as it lives: struct keep at `where` in control memory. */
void plan_keep(struct plans *plans, uint32_t task, uint64_t where);

/* Accepts only what another operation, made before it, had as its result; or as plan_accept_equal(). */
void plan_accept(struct plans *plans, struct arg value);
/* Writes a number in decimal, ended by NUL, to `to`. */
void plan_decimal(struct plans *plans, uint32_t task, struct arg to, struct arg value);

/*
 * Numbers of tasks that are known only when the tasks are born (plan_numbers.c).  Tasks then get any number, and
 * plans say by the one it had whom they mean: find(arg, number) tells which task that is, UINT32_MAX: none of ours.
 * Without it, and for numbers of nobody of ours, these are as if the number itself were written.
 */
typedef uint32_t (*plan_find_fn)(const void *arg, int number);
void plans_number_late(struct plans *plans, plan_find_fn find, const void *arg);
/* Is this the number of a task that will have another one? */
bool plans_is_late(const struct plans *plans, int number);
/* The number that this one has become, to be used by operations that the task appends next. Whom it means must
 * have been born by then. */
struct arg plan_number(struct plans *plans, uint32_t task, int number);
/* Writes it over the 4 bytes at an address. */
void plan_number_into(struct plans *plans, uint32_t task, struct arg to, int number);

/* Bytes of control memory needed, agent text not included; a multiple of the page size. */
size_t plans_size(const struct plans *plans);

/* Lays everything out at ctl (plans_size() zeroed bytes). base: address the agent's text has in
 * the tasks, which see ctl at base + AGENT_TEXT. */
int plans_write(struct plans *plans, struct ctl *ctl, uint64_t base, struct fsnap_error *err);

/* After plans_write: where data and slots are, to read results and patch inputs. */
void *plans_data_at(const struct plans *plans, struct ctl *ctl, uint32_t ref);
int64_t plans_slot(const struct plans *plans, struct ctl *ctl, uint32_t slot);

/* Fills err with `code` from what ctl says went wrong: who, which step, its note, the call with
 * its arguments, errno. Returns -1. */
int plans_failure(const struct plans *plans, struct ctl *ctl, int code, struct fsnap_error *err);

/* The plans as text for people: a heading per task, a line per operation. */
void plans_explain(const struct plans *plans, FILE *out);

#endif
