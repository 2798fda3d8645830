#include "engine/aside.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/procfs.h"
#include "store/scope.h"

/* "0.12 0.34 0.56 RUNNING/ALL LAST" (proc_loadavg(5)): we do. */
static bool nobody_else_runs(void)
{
	unsigned running;
	cleanup_free char *text = procfs_read_once(AT_FDCWD, "/proc/loadavg", NULL, NULL);
	return text && sscanf(text, "%*s %*s %*s %u/", &running) == 1 && running <= 1;
}

void aside_step(void)
{
	cpu_set_t ours, others;
	int here = sched_getcpu();
	if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof(ours), &ours) < 0 || CPU_COUNT(&ours) < 2 ||
	    !nobody_else_runs())
		return;
	others = ours;
	CPU_CLR((size_t)here, &others);
	if (sched_setaffinity(0, sizeof(others), &others) == 0)
		sched_setaffinity(0, sizeof(ours), &ours);
}
