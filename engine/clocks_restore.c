#include "engine/clocks.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/laps.h"
#include "engine/restore.h"
#include "store/scope.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define SECOND 1000000000ll
#define STACK (64 * 1024)

static bool same_boot(const image_tree *tree)
{
	cleanup_free char *here = clocks_boot_id();
	return here && strcmp(here, tree->boot_id) == 0;
}

static struct clock_offsets go_on(const image_tree *tree, struct clock_offsets own)
{
	return (struct clock_offsets){
		.monotonic = (int64_t)(tree->monotonic_ns - clock_ns(CLOCK_MONOTONIC)) + own.monotonic,
		.boottime = (int64_t)(tree->boottime_ns - clock_ns(CLOCK_BOOTTIME)) + own.boottime,
	};
}

struct making {
	struct clock_offsets offsets;
	int fd, error;
};

/* The kernel wants ns in [0, 1 s), also of negative times. */
static int say(char *text, size_t size, const char *clock, int64_t ns)
{
	int64_t seconds = ns / SECOND - (ns % SECOND < 0);
	return snprintf(text, size, "%s %lld %lld\n", clock, (long long)seconds,
			(long long)(ns - seconds * SECOND));
}

static int write_offsets(const struct clock_offsets *offsets)
{
	char text[128];
	int used = say(text, sizeof(text), "monotonic", offsets->monotonic);
	used += say(text + used, sizeof(text) - (size_t)used, "boottime", offsets->boottime);
	cleanup_fd int fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, (size_t)used) == used ? 0 : -1;
}

/* unshare(CLONE_NEWTIME) is for the children of whoever calls it: it must not be us, who may have others. It
 * shares our descriptors, which keeps the namespace. */
static int make_namespace(void *arg)
{
	struct making *making = arg;
	making->fd = -1;
	if (unshare(CLONE_NEWTIME) == 0 && write_offsets(&making->offsets) == 0)
		making->fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
	making->error = making->fd < 0 ? errno : 0;
	_exit(0);
}

static int make(struct clock_offsets offsets, int *error)
{
	struct making making = { .offsets = offsets, .fd = -1, .error = ENOMEM };
	char *stack = malloc(STACK);
	pid_t child = stack ? clone(make_namespace, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES, &making) : -1;
	if (child < 0)
		making.error = errno;
	else
		waitpid(child, NULL, __WALL);
	free(stack);
	*error = making.error;
	return making.fd;
}

static int cannot(struct restore *restore, const struct clock_offsets *off, int error, struct fsnap_error *err)
{
	if (restore->options->clocks != FSNAP_CLOCKS_GO_ON) {
		restore_note(restore, "clocks (CLOCK_MONOTONIC) do not go on where they stood but are this machine's, "
			     "%lld seconds %s: no time namespace (%s)",
			     (long long)(llabs(off->monotonic) / SECOND), off->monotonic > 0 ? "back" : "ahead",
			     strerror(error));
		return 0;
	}
	if (error == EINVAL)
		return fail(err, FSNAP_E_KERNEL_LACKS, 0, "this kernel has no time namespaces, in which clocks can "
			    "go on where they stood");
	fail(err, error == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_RESTORE_STEP, error,
	     "a time namespace, in which clocks go on where they stood");
	return error_hint(err, "this takes CAP_SYS_ADMIN and CAP_SYS_TIME; --clocks machine does without");
}

int clocks_prepare(struct restore *restore, struct fsnap_error *err)
{
	const image_tree *tree = &restore->model.tree;
	int mode = restore->options->clocks, error;
	struct clock_offsets own = clocks_own_offsets(), wanted = own;
	if (mode == FSNAP_CLOCKS_GO_ON || (mode == FSNAP_CLOCKS_DEFAULT && !same_boot(tree)))
		wanted = go_on(tree, own);
	else if (mode == FSNAP_CLOCKS_DEFAULT)
		wanted = (struct clock_offsets){ tree->monotonic_offset_ns, tree->boottime_offset_ns };
	struct clock_offsets off = { wanted.monotonic - own.monotonic, wanted.boottime - own.boottime };
	if (!off.monotonic && !off.boottime)
		return 0;
	int fd = make(wanted, &error);
	if (fd < 0)
		return cannot(restore, &off, error, err);
	restore->time_namespace = workshop_bench(restore, fd, err);
	return restore->time_namespace < 0 ? -1 : 0;
}

void clocks_enter(struct restore *restore, uint32_t task)
{
	if (restore->time_namespace < 0)
		return;
	plan_note(restore->plans, "clocks go on where they stood");
	plan_call(restore->plans, task, SYS_setns, IMM(restore->time_namespace), IMM(CLONE_NEWTIME));
}

int restore_time_namespace(const struct restore *restore)
{
	return restore->time_namespace;
}
