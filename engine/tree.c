#include "engine/tree.h"

#include <search.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/told.h"

/* Appends to a NULL-initialised array of pointers that doubles at powers of two. */
static int append(void ***array, size_t *count, void *item)
{
	if ((*count & (*count - 1)) == 0) {
		void **more = realloc(*array, (*count ? 2 * *count : 1) * sizeof(*more));
		if (!more)
			return -1;
		*array = more;
	}
	(*array)[(*count)++] = item;
	return 0;
}

struct process *tree_add(struct tree *tree, pid_t pid, pid_t ppid)
{
	struct process *process = calloc(1, sizeof(*process));
	if (!process)
		return NULL;
	process->pid = pid;
	process->ppid = ppid;
	process->live = pid;
	process->proc = process->pidfd = process->mem = -1;
	if (tree_put(tree, process) < 0) {
		free(process);
		return NULL;
	}
	return process;
}

struct task *process_add_task(struct process *process, pid_t tid)
{
	struct task *task = calloc(1, sizeof(*task));
	if (!task)
		return NULL;
	task->tid = tid;
	task->process = process;
	if (append((void ***)&process->tasks, &process->n_tasks, task) < 0) {
		free(task);
		return NULL;
	}
	return task;
}

/* Where it stands; n_processes: nowhere. The index may remember some that were taken out. */
static size_t place_of(const struct tree *tree, pid_t pid)
{
	size_t at = numbers_get(&tree->index, pid);
	return at < tree->n_processes && tree->processes[at]->pid == pid ? at : tree->n_processes;
}

struct process *tree_find(const struct tree *tree, pid_t pid)
{
	size_t at = place_of(tree, pid);
	return at < tree->n_processes ? tree->processes[at] : NULL;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void process_forget_tasks(struct process *process)
{
	for (size_t i = 0; i < process->n_tasks; i++) {
		xdr_free((xdrproc_t)xdr_image_thread, (char *)&process->tasks[i]->image);
		free(process->tasks[i]);
	}
	free(process->tasks);
	for (size_t i = 0; i < process->n_workers; i++)
		free(process->workers[i]);
	free(process->workers);
	process->tasks = process->workers = NULL;
	process->n_tasks = process->n_workers = 0;
	process->seizing = process->still = false;
}

void process_free(struct process *process)
{
	process_forget_tasks(process);
	xdr_free((xdrproc_t)xdr_image_thread, (char *)&process->ended);
	free(process->advice);
	free(process->userfaults.ranges);
	free(process->userfaults.protected);
	free(process->userfaults.present);
	free(process->swapped);
	free(process->leftovers);
	free(process->left_fds);
	tdestroy(process->locks_known, free);
	close_if_open(process->proc);
	close_if_open(process->pidfd);
	close_if_open(process->mem);
	told_close(process);
	for (enum early_text what = 0; what < N_EARLY; what++)
		free(process->early[what]);
	xdr_free((xdrproc_t)xdr_image_process, (char *)&process->image);
	xdr_free((xdrproc_t)xdr_image_mm, (char *)&process->mm);
	free(process);
}

struct process *tree_take(struct tree *tree, pid_t pid)
{
	size_t at = place_of(tree, pid);
	if (at == tree->n_processes)
		return NULL;
	struct process *taken = tree->processes[at], *last = tree->processes[--tree->n_processes];
	tree->processes[at] = last;
	numbers_put(&tree->index, last->pid, at); /* it is known there: no memory is wanted */
	return taken;
}

int tree_put(struct tree *tree, struct process *process)
{
	if (numbers_put(&tree->index, process->pid, tree->n_processes) < 0)
		return -1;
	return append((void ***)&tree->processes, &tree->n_processes, process);
}

void tree_free(struct tree *tree)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		process_free(tree->processes[i]);
	free(tree->processes);
	numbers_free(&tree->index);
	*tree = (struct tree){ 0 };
}
