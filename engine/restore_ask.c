/*
 * restore_ask.c - what kinds may ask of a restore: its options, its notes, the other files of the image.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/notes.h"
#include "engine/restore.h"

const struct fsnap_restore_options *restore_options(const struct restore *restore)
{
	return restore->options;
}

const char *restore_hold(const struct restore *restore)
{
	return restore->model.tree.hold;
}

bool restore_is_beside(const struct restore *restore)
{
	return restore->renumber.beside;
}

void restore_note(struct restore *restore, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	notes_add(restore->report->notes, sizeof(restore->report->notes), format, args);
	va_end(args);
}

static const image_process *process_of_thread(const struct model *model, pid_t tid)
{
	for (size_t i = 0; i < model->n_processes; i++)
		for (u_int j = 0; j < model->processes[i].threads.threads_len; j++)
			if (model->processes[i].threads.threads_val[j].tid == tid)
				return &model->processes[i];
	return NULL;
}

uint64_t restore_mapped(struct restore *restore, pid_t tid, unsigned file_id, uint64_t offset, uint64_t size)
{
	const image_process *process = process_of_thread(&restore->model, tid);
	const image_mm *mm = process ? model_mm(&restore->model, process->mm) : NULL;
	for (u_int i = 0; mm && i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind == VMA_RING && vma->object == file_id && vma->offset == offset &&
		    vma->end - vma->start >= size)
			return vma->start;
	}
	return 0;
}

int restore_number_of(struct restore *restore, unsigned file_id)
{
	return restore->files[file_id - 1].number;
}

int restore_spare_number(struct restore *restore, unsigned file_id)
{
	return restore->bench + (int)file_id;
}

uint32_t restore_deputy(struct restore *restore, struct plans *plans, uint32_t task, pid_t tid)
{
	const image_process *process = process_of_thread(&restore->model, tid);
	const image_thread *thread = NULL;
	for (u_int i = 0; process && i < process->threads.threads_len; i++)
		if (process->threads.threads_val[i].tid == tid)
			thread = &process->threads.threads_val[i];
	if (!thread)
		return task;
	char who[64];
	snprintf(who, sizeof(who), "deputy of thread %d", tid);
	uint32_t deputy = plans_task(plans, 0, who);
	creds_rebuild_task(&(struct rebuild){ .plans = plans, .task = deputy, .process = process, .thread = thread,
					      .self = &restore->self });
	plan_helper(plans, task, deputy);
	return deputy;
}

void restore_deputy_done(struct plans *plans, uint32_t task, uint32_t deputy)
{
	if (deputy == task)
		return;
	plan_call(plans, deputy, SYS_exit, IMM(0));
	plan_join(plans, task, deputy);
}

int restore_memory(struct restore *restore, pid_t pid, struct fsnap_error *err)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d/mem", restore_number(restore, pid));
	int fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "memory of process %d", pid) : fd;
}

uint64_t restore_shared(struct restore *restore, uint32_t data)
{
	return (uintptr_t)plans_data_at(restore->plans, restore_control(restore), data);
}

const void *restore_file_state(struct restore *restore, const char *kind, size_t index,
			       const image_file **file)
{
	struct file_cursor *cursor = &restore->file_cursor;
	const struct file_kind *wanted = file_kind_find(kind);
	if (cursor->kind != wanted || index < cursor->number)
		*cursor = (struct file_cursor){ wanted, 0, 0 };
	for (; cursor->at < restore->model.n_files; cursor->at++) {
		const image_file *candidate = &restore->model.files[cursor->at];
		if (strcmp(candidate->kind, kind) != 0 || cursor->number++ < index)
			continue;
		cursor->number--;
		if (file)
			*file = candidate;
		return &restore->files[cursor->at].state;
	}
	return NULL;
}

const void *restore_file_by_id(struct restore *restore, unsigned id, const image_file **file)
{
	if (id == 0 || id > restore->model.n_files)
		return NULL;
	*file = &restore->model.files[id - 1];
	return &restore->files[id - 1].state;
}

const void *restore_file_next(struct restore *restore, const struct file_kind *kind, uint64_t key,
			      size_t *at, const image_file **file)
{
	size_t i = file_keys_next(&restore->file_keys, kind, key, at);
	if (i == SIZE_MAX)
		return NULL;
	if (file)
		*file = &restore->model.files[i];
	return &restore->files[i].state;
}

void **restore_scratch(struct restore *restore, const struct file_kind *kind)
{
	size_t place = 0;
	while (file_kinds[place] != kind)
		place++;
	return &restore->scratch[place];
}
