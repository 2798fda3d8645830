/*
 * timerfd_create(2).  A timer goes on with what remained of its time, whatever
 * clock reading that means now; one that was set for a time of day
 * (CLOCK_REALTIME with TFD_TIMER_ABSTIME) keeps that, and has expired if it passed.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "store/scope.h"

#define SECOND 1000000000ull

#ifndef TFD_IOC_SET_TICKS /* linux/timerfd.h, which cannot stand beside fcntl.h */
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

static bool timerfd_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[timerfd]");
}

static bool parse(const char *info, image_file_timerfd *state)
{
	uint64_t clock, flags;
	unsigned long long second[2], ns[2];
	const char *value = strstr(info, "it_value:"), *interval = strstr(info, "it_interval:");
	if (!value || !interval || !fdinfo_number(info, "clockid", 10, &clock) ||
	    !fdinfo_number(info, "ticks", 10, &state->ticks) ||
	    !fdinfo_number(info, "settime flags", 8, &flags) ||
	    sscanf(value, "it_value: (%llu, %llu)", &second[0], &ns[0]) != 2 ||
	    sscanf(interval, "it_interval: (%llu, %llu)", &second[1], &ns[1]) != 2)
		return false;
	state->clock = (int)clock;
	state->settime_flags = (int)flags;
	state->value_ns = second[0] * SECOND + ns[0];
	state->interval_ns = second[1] * SECOND + ns[1];
	return true;
}

/*
 * A periodic timer that expired stands still until somebody asks: the kernel counts the periods
 * gone by only then. timerfd_gettime makes it count, which changes nothing a program can see. It may
 * expire once more before it is read.
 */
static bool parse_counted(const struct fd_view *fd, image_file_timerfd *state)
{
	struct itimerspec now;
	char path[64], info[1024];
	if (fd->dup < 0 || timerfd_gettime(fd->dup, &now) < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd->dup);
	cleanup_fd int own = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = own < 0 ? -1 : read(own, info, sizeof(info) - 1);
	if (size < 0)
		return false;
	info[size] = '\0';
	return parse(info, state);
}

static bool stands_still(const image_file_timerfd *state)
{
	return state->interval_ns && !state->value_ns && state->ticks;
}

static bool is_wall_clock(const image_file_timerfd *state)
{
	return (state->clock == CLOCK_REALTIME || state->clock == CLOCK_REALTIME_ALARM) &&
	       (state->settime_flags & TFD_TIMER_ABSTIME);
}

static int timerfd_save(const struct fd_view *fd, image_file *file, void *out,
			struct fsnap_error *err)
{
	(void)file;
	image_file_timerfd *state = out;
	bool known = parse(fd->info, state);
	for (int i = 0; i < 3 && known && stands_still(state); i++)
		known = parse_counted(fd, state);
	if (known && stands_still(state))
		state->value_ns = 1; /* its period is shorter than our look */
	if (!known)
		return refuse_fd(fd, err, "The kernel does not say when it expires: one with "
					  "CONFIG_CHECKPOINT_RESTORE does.",
				 "a timerfd");
	if (state->value_ns && is_wall_clock(state)) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		state->deadline_ns = (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec +
				     state->value_ns;
	}
	return 0;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};
}

static struct itimerspec to_setting(const image_file_timerfd *state)
{
	return (struct itimerspec){
		.it_value = to_timespec(state->deadline_ns ? state->deadline_ns : state->value_ns),
		.it_interval = to_timespec(state->interval_ns),
	};
}

static int setting_flags(const image_file_timerfd *state)
{
	return state->deadline_ns ? state->settime_flags : 0;
}

static bool wakes_the_machine(const image_file_timerfd *state)
{
	return state->clock == CLOCK_REALTIME_ALARM || state->clock == CLOCK_BOOTTIME_ALARM;
}

static clockid_t clock_to_read(const image_file_timerfd *state)
{
	return state->clock == CLOCK_REALTIME_ALARM ? CLOCK_REALTIME :
	       state->clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME :
						      state->clock;
}

/*
 * Without TFD_IOC_SET_TICKS (CONFIG_CHECKPOINT_RESTORE): a timer whose first time is so long ago
 * that all these expirations have been.
 */
static int expire_in_the_past(int fd, const image_file_timerfd *state)
{
	struct timespec now;
	clock_gettime(clock_to_read(state), &now);
	uint64_t gone = state->ticks * state->interval_ns;
	uint64_t next = (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec + state->value_ns;
	struct itimerspec timer = {
		.it_value = to_timespec(state->interval_ns && next > gone ? next - gone : 1),
		.it_interval = to_timespec(state->interval_ns),
	};
	return timerfd_settime(fd, TFD_TIMER_ABSTIME | setting_flags(state), &timer, NULL);
}

/* *slot in restore_scratch: not NULL when the kernel cannot set them. */
static int set_ticks(struct restore *restore, int fd, const image_file_timerfd *state)
{
	uint64_t ticks = state->ticks;
	errno = ENOTTY;
	if (!getenv("FSNAP_NO_SET_TICKS") && ioctl(fd, TFD_IOC_SET_TICKS, &ticks) == 0) /* for tests */
		return 0;
	if (errno != ENOTTY)
		return -1;
	void **lacks = restore_scratch(restore, &kind_timerfd);
	if (!*lacks)
		*lacks = malloc(1);
	return expire_in_the_past(fd, state);
}

static int timerfd_make(struct restore *restore, const image_file *file, const void *in,
			struct fsnap_error *err)
{
	const image_file_timerfd *state = in;
	cleanup_fd int fd = timerfd_create(state->clock, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0) {
		int sys = errno;
		fail(err, FSNAP_E_RESTORE_STEP, sys, "file %u: timerfd of clock %d", file->id,
		     state->clock);
		return sys == EPERM ? error_hint(err, "Timers that wake the machine need "
						      "CAP_WAKE_ALARM.") :
				      -1;
	}
	struct itimerspec timer = to_setting(state);
	if (timerfd_settime(fd, setting_flags(state), &timer, NULL) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: timerfd: set", file->id);
	if (state->ticks && set_ticks(restore, fd, state) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: timerfd: %llu expirations not read",
			    file->id, (unsigned long long)state->ticks);
	return steal_fd(&fd);
}

/* Once more when everything is in place: its time stands still until the program runs. */
static void start(struct restore *restore, const image_file_timerfd *state, struct plans *plans,
		  uint32_t task, int fd)
{
	struct itimerspec timer = to_setting(state);
	if (!state->value_ns || (state->ticks && *restore_scratch(restore, &kind_timerfd)))
		return;
	plan_note(plans, "timerfd %d", fd);
	plan_call(plans, task, SYS_timerfd_settime, IMM(fd), IMM(setting_flags(state)),
		  DATA(plans_data(plans, &timer, sizeof(timer), 8)), IMM(0));
	if (state->ticks)
		plan_call(plans, task, SYS_ioctl, IMM(fd), IMM(TFD_IOC_SET_TICKS),
			  DATA(plans_data(plans, &state->ticks, sizeof(state->ticks), 8)));
}

static void timerfd_arm(struct restore *restore, const image_file *file, const void *in,
			struct plans *plans, uint32_t task, int fd)
{
	(void)file;
	if (!wakes_the_machine(in))
		start(restore, in, plans, task, fd);
}

/* These need CAP_WAKE_ALARM, which the program may have given up. */
static void timerfd_settle_late(struct restore *restore, const image_file *file, const void *in,
				struct plans *plans, uint32_t task, int fd)
{
	(void)file;
	if (wakes_the_machine(in))
		start(restore, in, plans, task, fd);
}

const struct file_kind kind_timerfd = {
	.name = "timerfd",
	.keeps = "clock, absolute or relative, remaining time, interval, cancelling when the clock is set, "
		 "expirations not read yet",
	.shown_by = "event_timerfd*",
	.xdr = (xdrproc_t)xdr_image_file_timerfd,
	.matches = timerfd_matches,
	.save = timerfd_save,
	.make = timerfd_make,
	.settle_late = timerfd_settle_late,
	.arm = timerfd_arm,
};
