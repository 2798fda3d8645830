#include "engine/told.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "store/scope.h"

static const struct {
	const char *name;
	bool once; /* the kernel writes it in one go */
} files[N_TOLD] = {
	[TOLD_STAT] = { "stat", true },
	[TOLD_STATUS] = { "status", true },
	[TOLD_TIMERS] = { "timers", false },
	[TOLD_OOM_SCORE] = { "oom_score_adj", true },
	[TOLD_CORE_FILTER] = { "coredump_filter", true },
};

/* Descriptors are kept for other things, too: of those that we may have, most. */
static bool takes_too_much(int fd)
{
	struct rlimit limit;
	return fd > 100 && (getrlimit(RLIMIT_NOFILE, &limit) < 0 || (rlim_t)fd > limit.rlim_cur / 4);
}

static int open_one(const struct process *process, enum told what)
{
	return openat(process->proc, files[what].name, O_RDONLY | O_CLOEXEC);
}

void told_open(struct process *process)
{
	for (enum told what = 0; what < N_TOLD; what++) {
		int fd = process->told[what] ? -1 : open_one(process, what);
		if (fd >= 0)
			process->told[what] = fd + 1;
		if (takes_too_much(fd)) {
			told_close(process);
			return;
		}
	}
}

void told_close(struct process *process)
{
	for (enum told what = 0; what < N_TOLD; what++) {
		if (process->told[what])
			close(process->told[what] - 1);
		process->told[what] = 0;
	}
}

char *told_read(const struct process *process, enum told what, struct fsnap_error *err)
{
	if (process->told[what])
		return procfs_read_again(process->told[what] - 1, process->proc, files[what].name, files[what].once, err);
	return files[what].once ? procfs_read_once(process->proc, files[what].name, NULL, err) :
				  procfs_read(process->proc, files[what].name, NULL, err);
}

int told_stat(const struct process *process, struct procfs_stat *stat, struct fsnap_error *err)
{
	cleanup_free char *text = told_read(process, TOLD_STAT, err);
	return text ? procfs_parse_stat(text, "stat", stat, err) : -1;
}
