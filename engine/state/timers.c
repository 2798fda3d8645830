/*
 * timers.c - interval timers (setitimer(2)) and POSIX timers (timer_create(2)).
 *
 * Timers are made early and armed last: until the program runs, no time of it passes.
 * How often a timer has overrun cannot be put back; the image keeps it for people.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>

#include "engine/state/state.h"
#include "engine/told.h"
#include "store/scope.h"

#ifndef PR_TIMER_CREATE_RESTORE_IDS /* Linux 6.15 */
#define PR_TIMER_CREATE_RESTORE_IDS 77
#define PR_TIMER_CREATE_RESTORE_IDS_OFF 0
#define PR_TIMER_CREATE_RESTORE_IDS_ON 1
#endif
#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif

/* Where IDs cannot be chosen they are counted up to; more than this many would take seconds. */
#define COUNTABLE_ID 20000
#define N_ITIMERS 3
#define NS_PER_S 1000000000ull
#define US_PER_S 1000000ull

/* --- dump ------------------------------------------------------------------------ */

/* The kernel's struct sigevent, of which libc hides the thread ID. */
struct kernel_sigevent {
	uint64_t value;
	int32_t signo;
	int32_t notify;
	int32_t tid;
	int32_t padding[11];
};

static int parse_notify(const char *text)
{
	int notify = strncmp(text, "signal/", 7) == 0 ? SIGEV_SIGNAL :
		     strncmp(text, "thread/", 7) == 0 ? SIGEV_THREAD : SIGEV_NONE;
	const char *slash = strchr(text, '/');
	return slash && strncmp(slash, "/tid", 4) == 0 ? notify | SIGEV_THREAD_ID : notify;
}

/* One line of /proc/PID/timers (proc(5)): "ID: 7" begins a timer, "ClockID: 1" ends it. */
static void parse_line(const char *line, image_posix_timer *timer)
{
	unsigned long long value;
	if (sscanf(line, "ID: %d", &timer->id) == 1)
		return;
	if (sscanf(line, "signal: %d/%llx", &timer->signo, &value) == 2)
		timer->sigval = value;
	else if (strncmp(line, "notify: ", 8) == 0) {
		timer->notify = parse_notify(line + 8);
		const char *dot = strchr(line, '.');
		if (dot && timer->notify & SIGEV_THREAD_ID)
			timer->tid = atoi(dot + 1);
	} else
		sscanf(line, "ClockID: %d", &timer->clock);
}

int timers_collect(struct survey *survey, struct fsnap_error *err)
{
	image_process *image = &survey->process->image;
	cleanup_free char *text = told_read(survey->process, TOLD_TIMERS, err);
	if (!text)
		return error_context(err, "process %d", survey->process->pid);
	image_posix_timer timer = { .id = 0 };
	char *cursor = text;
	for (char *line; (line = strsep(&cursor, "\n"));) {
		parse_line(line, &timer);
		if (strncmp(line, "ClockID:", 8) != 0)
			continue;
		unsigned n = image->timers.timers_len;
		image_posix_timer *more =
			reallocarray(image->timers.timers_val, n + 1, sizeof(*more));
		if (!more)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "listing POSIX timers");
		image->timers.timers_val = more;
		more[image->timers.timers_len++] = timer;
		timer = (image_posix_timer){ .id = 0 };
	}
	return 0;
}

void timers_ask(struct survey *survey, struct plans *plans)
{
	const image_process *image = &survey->process->image;
	struct process_asks *asks = &survey->asks;
	uint32_t plan = survey->task[0].plan;
	plan_note(plans, "ask for interval timers");
	asks->itimers = plans_data(plans, NULL, N_ITIMERS * sizeof(struct itimerval), 8);
	for (unsigned which = 0; which < N_ITIMERS; which++)
		plan_call(plans, plan, SYS_getitimer, IMM(which),
			  DATA(asks->itimers + which * (unsigned)sizeof(struct itimerval)));

	unsigned n = image->timers.timers_len;
	asks->timers = plans_data(plans, NULL, n * sizeof(struct itimerspec), 8);
	plan_note(plans, "ask for POSIX timers");
	for (unsigned i = 0; i < n; i++) {
		int id = image->timers.timers_val[i].id;
		plan_call(plans, plan, SYS_timer_gettime, IMM(id),
			  DATA(asks->timers + i * (unsigned)sizeof(struct itimerspec)));
		plan_call(plans, plan, SYS_timer_getoverrun, IMM(id));
		uint32_t slot = plan_result(plans);
		if (i == 0)
			asks->overruns = slot;
	}
}

static uint64_t from_timeval(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * US_PER_S + (uint64_t)t->tv_usec;
}

static uint64_t from_timespec(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_nsec;
}

void timers_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl)
{
	image_process *image = &survey->process->image;
	const struct itimerval *itimer = plans_data_at(plans, ctl, survey->asks.itimers);
	for (unsigned which = 0; which < N_ITIMERS; which++)
		image->itimers[which] = (image_itimer){ from_timeval(&itimer[which].it_value),
							from_timeval(&itimer[which].it_interval) };

	const struct itimerspec *spec = plans_data_at(plans, ctl, survey->asks.timers);
	for (unsigned i = 0; i < image->timers.timers_len; i++) {
		image_posix_timer *timer = &image->timers.timers_val[i];
		timer->value_ns = from_timespec(&spec[i].it_value);
		timer->interval_ns = from_timespec(&spec[i].it_interval);
		timer->overrun = (unsigned)plans_slot(plans, ctl, survey->asks.overruns + i);
	}
}

/* --- restore ------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	const image_posix_timer *const *x = a, *const *y = b;
	return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
}

static const image_posix_timer **sort_timers(const image_process *process)
{
	unsigned n = process->timers.timers_len;
	const image_posix_timer **sorted = calloc(n, sizeof(*sorted));
	if (!sorted)
		return NULL;
	for (unsigned i = 0; i < n; i++)
		sorted[i] = &process->timers.timers_val[i];
	qsort(sorted, n, sizeof(*sorted), by_id);
	return sorted;
}

static void create(const struct rebuild *r, const image_posix_timer *timer)
{
	struct kernel_sigevent event = {
		.value = timer->sigval,
		.signo = timer->signo,
		.notify = timer->notify,
		.tid = timer->tid,
	};
	uint32_t id = plans_data(r->plans, &timer->id, sizeof(timer->id), 4);
	uint32_t data = plans_data(r->plans, &event, sizeof(event), 8);
	plan_number_into(r->plans, r->task, DATA(data + offsetof(struct kernel_sigevent, tid)), timer->tid);
	plan_call(r->plans, r->task, SYS_timer_create, IMM(timer->clock), DATA(data), DATA(id));
}

static void create_with_ids(const struct rebuild *r, const image_posix_timer **timers, unsigned n)
{
	plan_note(r->plans, "POSIX timers get the IDs they had");
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_TIMER_CREATE_RESTORE_IDS),
		  IMM(PR_TIMER_CREATE_RESTORE_IDS_ON));
	for (unsigned i = 0; i < n; i++) {
		plan_note(r->plans, "POSIX timer %d", timers[i]->id);
		create(r, timers[i]);
	}
	plan_note(r->plans, "POSIX timers get new IDs");
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_TIMER_CREATE_RESTORE_IDS),
		  IMM(PR_TIMER_CREATE_RESTORE_IDS_OFF));
}

/* Before Linux 6.15 a process' timers are numbered from 0 in order of creation. */
static void create_by_counting(const struct rebuild *r, const image_posix_timer **timers, unsigned n)
{
	static const image_posix_timer nobody = { .clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE };
	uint32_t spec = plans_data(r->plans, NULL, sizeof(struct itimerspec), 8);
	int next = 0;
	for (unsigned i = 0; i < n; i++, next++) {
		plan_note(r->plans, "POSIX timer %d", timers[i]->id);
		for (; next < timers[i]->id; next++) {
			create(r, &nobody);
			plan_call(r->plans, r->task, SYS_timer_delete, IMM(next));
		}
		create(r, timers[i]);
		plan_call(r->plans, r->task, SYS_timer_gettime, IMM(timers[i]->id), DATA(spec));
	}
}

int timers_rebuild(const struct rebuild *r, struct fsnap_error *err)
{
	unsigned n = r->process->timers.timers_len;
	if (!n)
		return 0;
	cleanup_free const image_posix_timer **timers = sort_timers(r->process);
	if (!timers)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "sorting POSIX timers");
	if (r->self->timer_ids) {
		create_with_ids(r, timers, n);
		return 0;
	}
	if (timers[n - 1]->id > COUNTABLE_ID) {
		fail(err, FSNAP_E_KERNEL_LACKS, 0,
		     "process %d: POSIX timer %d: this kernel cannot choose timer IDs",
		     r->process->pid, timers[n - 1]->id);
		return error_hint(err, "restore on Linux 6.15 or newer");
	}
	create_by_counting(r, timers, n);
	return 0;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
}

static struct timeval to_timeval(uint64_t us)
{
	return (struct timeval){ (time_t)(us / US_PER_S), (suseconds_t)(us % US_PER_S) };
}

/* A periodic one shows nothing left while its signal waits to be taken: only then does the kernel start it
 * again (it_real_fn() in kernel/time/itimer.c, dequeue_signal() in kernel/signal.c). Here it expires at once,
 * while signals are blocked, and that signal is one with the one that waits. */
static uint64_t left(const image_itimer *timer)
{
	return timer->value_us || !timer->interval_us ? timer->value_us : 1;
}

void timers_arm(const struct rebuild *r)
{
	for (unsigned i = 0; i < r->process->timers.timers_len; i++) {
		const image_posix_timer *timer = &r->process->timers.timers_val[i];
		struct itimerspec spec = { to_timespec(timer->interval_ns),
					   to_timespec(timer->value_ns) };
		plan_note(r->plans, "arm POSIX timer %d", timer->id);
		if (timer->value_ns)
			plan_call(r->plans, r->task, SYS_timer_settime, IMM(timer->id), IMM(0),
				  DATA(plans_data(r->plans, &spec, sizeof(spec), 8)), IMM(0));
	}
	for (unsigned which = 0; which < N_ITIMERS; which++) {
		const image_itimer *timer = &r->process->itimers[which];
		struct itimerval value = { to_timeval(timer->interval_us), to_timeval(left(timer)) };
		plan_note(r->plans, "arm interval timer %u", which);
		if (left(timer))
			plan_call(r->plans, r->task, SYS_setitimer, IMM(which),
				  DATA(plans_data(r->plans, &value, sizeof(value), 8)), IMM(0));
	}
}
