/*
 * helpers.c - threads that help to fill large memory (restorer/crew.c): as many workers in all as there are
 * processors, so each process that has much gets its share of them.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/procfs.h"
#include "engine/restore.h"
#include "store/scope.h"

#define TRIES 1000 /* numbers that are looked at before it is done without helpers */

static bool has_much(const struct restore *restore, const image_process *process)
{
	size_t n;
	uint64_t pages = 0;
	const struct page_run *runs = process->zombie ? NULL : image_runs(restore->image, process->mm, &n);
	for (size_t i = 0; runs && i < n; i++)
		pages += runs[i].npages;
	return pages >= MEMORY_MUCH;
}

static unsigned processors(void)
{
	cpu_set_t cpus;
	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
}

/* Behind every number that the image needs for whatever. */
static int behind_all(const struct restore *restore)
{
	int last = 300; /* where the kernel begins again, too (RESERVED_PIDS) */
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		int own[] = { process->pid, process->pgid, process->sid };
		for (size_t j = 0; j < sizeof(own) / sizeof(own[0]); j++)
			last = own[j] > last ? own[j] : last;
		for (u_int j = 0; j < process->threads.threads_len; j++)
			if (process->threads.threads_val[j].tid > last)
				last = process->threads.threads_val[j].tid;
	}
	return last + 1;
}

static bool is_free(int number)
{
	cleanup_fd int dir = procfs_open(number, NULL);
	return dir < 0;
}

static int highest_number(void)
{
	int highest = 32768;
	cleanup_file FILE *file = fopen("/proc/sys/kernel/pid_max", "re");
	if (file && fscanf(file, "%d", &highest) != 1)
		highest = 32768;
	return highest - 1;
}

/* So many in a row that nobody has; 0: not found. */
static int find_numbers(int from, int wanted)
{
	int found = 0, highest = highest_number();
	for (int number = from; number <= highest && number < from + TRIES; number++) {
		found = is_free(number) ? found + 1 : 0;
		if (found == wanted)
			return number - wanted + 1;
	}
	return 0;
}

void helpers_prepare(struct restore *restore)
{
	struct memory_source *source = &restore->source;
	unsigned large = 0;
	for (size_t i = 0; i < restore->model.n_processes; i++)
		large += has_much(restore, &restore->model.processes[i]);
	unsigned share = large ? processors() / large : 0;
	source->helpers = share > 1 ? share - 1 : 0;
	source->helper_number = 0;
	if (source->helpers == 0 || restore->renumber.wanted)
		return;
	source->helper_number = find_numbers(behind_all(restore), (int)(2 * source->helpers * large));
	if (source->helper_number == 0)
		source->helpers = 0;
	source->helper_number -= 2 * (int)source->helpers; /* the first process turns to its own */
}

void helpers_turn_to(struct restore *restore, const image_process *process)
{
	if (restore->source.helper_number && has_much(restore, process))
		restore->source.helper_number += 2 * (int)restore->source.helpers;
}
