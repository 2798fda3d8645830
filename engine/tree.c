#include "engine/tree.h"

#include <search.h>
#include <stdlib.h>
#include <unistd.h>

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
	if (append((void ***)&tree->processes, &tree->n_processes, process) < 0) {
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

struct process *tree_find(const struct tree *tree, pid_t pid)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		if (tree->processes[i]->pid == pid)
			return tree->processes[i];
	return NULL;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void process_free(struct process *process)
{
	for (size_t i = 0; i < process->n_tasks; i++) {
		xdr_free((xdrproc_t)xdr_image_thread, (char *)&process->tasks[i]->image);
		free(process->tasks[i]);
	}
	free(process->tasks);
	xdr_free((xdrproc_t)xdr_image_thread, (char *)&process->ended);
	free(process->advice);
	tdestroy(process->locks_known, free);
	close_if_open(process->proc);
	close_if_open(process->pidfd);
	close_if_open(process->mem);
	xdr_free((xdrproc_t)xdr_image_process, (char *)&process->image);
	xdr_free((xdrproc_t)xdr_image_mm, (char *)&process->mm);
	free(process);
}

struct process *tree_take(struct tree *tree, pid_t pid)
{
	for (size_t i = 0; i < tree->n_processes; i++) {
		struct process *process = tree->processes[i];
		if (process->pid != pid)
			continue;
		for (tree->n_processes--; i < tree->n_processes; i++)
			tree->processes[i] = tree->processes[i + 1];
		return process;
	}
	return NULL;
}

int tree_put(struct tree *tree, struct process *process)
{
	return append((void ***)&tree->processes, &tree->n_processes, process);
}

void tree_free(struct tree *tree)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		process_free(tree->processes[i]);
	free(tree->processes);
	*tree = (struct tree){ 0 };
}
