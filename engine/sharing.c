/*
 * sharing.c - what tasks have in common beyond what threads of one process always share (clone(2)): seen
 * with kcmp(2), whose order lets as many as there are be compared by sorting.
 */
#include <linux/kcmp.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/procfs.h"
#include "store/scope.h"

static const struct resource {
	int type;
	const char *what;
	const char *hint;
} resources[] = {
	{ KCMP_VM, "memory", "if it is about to exec, try again in a moment" },
	{ KCMP_FILES, "descriptor table", "save it while it has one of its own (close_range(2) with "
					  "CLOSE_RANGE_UNSHARE)" },
	{ KCMP_FS, "working directory and umask", "save it while it has its own (unshare(2) with CLONE_FS)" },
};

static int refuse_shared(const struct process *a, const struct process *b, const struct resource *resource,
			 struct fsnap_error *err)
{
	/* The younger one stands later in the tree, and is the one to name. */
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) shares its %s with %sprocess %d", b->pid, b->comm,
	     resource->what, b->ppid == a->pid ? "its parent, " : "", a->pid);
	return error_hint(err, "%s", resource->hint);
}

/* --- among processes ------------------------------------------------------------------ */

struct member {
	struct process *process;
	size_t place;
	int type;
};

static int by_resource(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	switch (syscall(SYS_kcmp, x->process->live, y->process->live, x->type, 0, 0)) {
	case 0:
		return 0;
	case 1:
		return -1;
	case 2:
		return 1;
	}
	return x->place < y->place ? -1 : 1; /* one died: that will be seen */
}

/* Sorted, those that share are neighbours. */
static int check_processes(struct member *members, size_t n, const struct resource *resource,
			   struct fsnap_error *err)
{
	for (size_t i = 0; i < n; i++)
		members[i].type = resource->type;
	qsort(members, n, sizeof(*members), by_resource);
	for (size_t i = 1; i < n; i++) {
		const struct member *a = &members[i - 1], *b = &members[i];
		if (by_resource(a, b) != 0)
			continue;
		return refuse_shared((a->place < b->place ? a : b)->process,
				     (a->place < b->place ? b : a)->process, resource, err);
	}
	return 0;
}

/* --- among threads ---------------------------------------------------------------------- */

/* Where it differs; NULL: nowhere. */
static const char *differs(pid_t live, pid_t tid)
{
	if (syscall(SYS_kcmp, live, tid, KCMP_FILES, 0, 0) != 0)
		return "descriptor table";
	return syscall(SYS_kcmp, live, tid, KCMP_FS, 0, 0) != 0 ? "working directory and umask" : NULL;
}

static int check_threads(const struct process *process, struct fsnap_error *err)
{
	for (size_t i = 1; i < process->n_tasks; i++) {
		const char *what = differs(process->live, process->tasks[i]->tid);
		if (!what)
			continue;
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): thread %d has a %s of its own (unshare(2))",
		     process->pid, process->comm, process->tasks[i]->tid, what);
		return error_hint(err, "only threads that share them with their process can be saved");
	}
	return 0;
}

/* --- all ---------------------------------------------------------------------------------- */

static int compare_all(struct member *members, size_t n, struct fsnap_error *err)
{
	for (size_t i = 0; i < sizeof(resources) / sizeof(resources[0]) && n > 1; i++)
		if (check_processes(members, n, &resources[i], err) < 0)
			return -1;
	return 0;
}

/* While it runs threads come and go: one that is not there any more differs, too. */
static bool threads_agree(const struct process *process)
{
	size_t n;
	cleanup_free pid_t *tids = procfs_threads(process->proc, &n, NULL);
	for (size_t i = 0; tids && i < n; i++)
		if (tids[i] != process->live && differs(process->live, tids[i]))
			return false;
	return tids != NULL;
}

/* Only who is made by clone(2) can share something with somebody (who executes another program gets a memory of its own):
 * those that have nothing in common before the freeze have not during it, either. */
void sharing_look(struct dump *dump)
{
	const struct tree *known = &dump->known;
	cleanup_free struct member *members = calloc(known->n_processes + 1, sizeof(*members));
	size_t n = 0;
	if (!members || known->n_processes == 0)
		return;
	members[n++] = (struct member){ dump->tree.processes[0], 0, 0 };
	for (size_t i = 0; i < known->n_processes; i++)
		if (known->processes[i]->prepared)
			members[n++] = (struct member){ known->processes[i], i + 1, 0 };
	for (size_t i = 0; i < n; i++)
		if (!threads_agree(members[i].process))
			return;
	if (compare_all(members, n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		members[i].process->apart = true;
}

int sharing_collect(struct dump *dump, struct fsnap_error *err)
{
	const struct tree *tree = &dump->tree;
	cleanup_free struct member *members = calloc(tree->n_processes, sizeof(*members));
	size_t n = 0;
	bool apart = true;
	if (!members)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "comparing processes");
	for (size_t i = 0; i < tree->n_processes; i++) {
		if (tree->processes[i]->image.zombie)
			continue;
		if (check_threads(tree->processes[i], err) < 0)
			return -1;
		apart = apart && tree->processes[i]->apart;
		members[n++] = (struct member){ tree->processes[i], i, 0 };
	}
	return apart ? 0 : compare_all(members, n, err);
}
