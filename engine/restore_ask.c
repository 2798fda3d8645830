/*
 * restore_ask.c - what kinds may ask of a restore: its options, its notes, the other files of the image.
 */
#include <stdarg.h>
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
