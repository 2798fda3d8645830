#include "engine/inspect/thread_view.h"

#include <stdlib.h>
#include <string.h>

#include "engine/inspect/elf.h"

/* A call that a stop or a dump has wound back stands on its `syscall` again, number in place. */
static bool stands_on_syscall(const uint8_t *bytes, size_t n)
{
	return n >= 2 && bytes[0] == 0x0f && bytes[1] == 0x05;
}

static void look_at_registers(struct thread_view *thread, struct text_cache *disassembler)
{
	const struct user_regs_struct *regs = view_regs(thread->thread);
	uint8_t bytes[16];

	thread->syscall = -1;
	if (!regs)
		return;
	thread->known = true;
	thread->address = regs->rip;
	size_t n = view_read(thread->process, regs->rip, bytes, sizeof(bytes));
	if (n)
		text_instruction(disassembler, bytes, n, regs->rip, thread->instruction,
				 sizeof(thread->instruction));
	if ((long)regs->orig_rax >= 0)
		thread->syscall = (long)regs->orig_rax;
	else if (stands_on_syscall(bytes, n))
		thread->syscall = (long)(int)regs->rax;
	uint64_t args[] = { regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 };
	memcpy(thread->args, args, sizeof(args));
}

static int look(struct tree_view *view, bool stacks, struct thread_view **threads, size_t *count,
		struct text_cache *disassembler, struct fsnap_error *err)
{
	for (size_t i = 0; i < view->n_processes; i++) {
		struct process_view *process = &view->processes[i];
		for (u_int j = 0; j < process->process.threads.threads_len; j++) {
			struct thread_view *thread = VIEW_ADD(*threads, *count, err);

			if (!thread)
				return -1;
			thread->process = process;
			thread->thread = &process->process.threads.threads_val[j];
			look_at_registers(thread, disassembler);
			if (stacks && thread->known && unwind(thread, err))
				return -1;
		}
	}
	return 0;
}

int threads_look(struct tree_view *view, bool stacks, struct thread_view **threads, size_t *count,
		 struct fsnap_error *err)
{
	struct text_cache disassembler = { 0 };

	*threads = NULL;
	*count = 0;
	int result = look(view, stacks, threads, count, &disassembler, err);
	text_cache_free(&disassembler);
	return result;
}

/* --- names ------------------------------------------------------------------------- */

/* A return address may be the first of the next function, where the call was the last
 * instruction: the name is looked up one byte before it. */
static void name_frame(struct process_view *process, struct frame *frame, bool returned_to)
{
	const image_vma *vma = view_vma(process, frame->address);
	uint64_t bias;
	struct elf *elf = view_elf(process, vma, &bias);

	if (vma->kind == VMA_FILE) {
		const struct mapped_view *mapped = view_mapped(process->tree, vma->object);
		frame->file = mapped ? mapped->mapped.identity.path : NULL;
		frame->in_file = frame->address - vma->start + vma->offset;
	} else if (vma->name && vma->name[0]) {
		frame->file = vma->name;
		frame->in_file = frame->address - vma->start;
	}
	if (!elf)
		return;
	frame->in_file = frame->address - bias;
	frame->symbol = elf_symbol(elf, frame->in_file - returned_to, &frame->into);
	frame->into += returned_to;
}

/* Frames that no call led to: the innermost, what a signal interrupted, and the signal's own return
 * trampoline, which the kernel puts in place of a caller. */
static bool was_called_from(const struct thread_view *thread, size_t i)
{
	bool trampoline = i + 1 < thread->n_frames && thread->frames[i + 1].interrupted;

	return i > 0 && !thread->frames[i].interrupted && !trampoline;
}

void threads_name(struct thread_view *threads, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < threads[i].n_frames; j++)
			name_frame(threads[i].process, &threads[i].frames[j],
				   was_called_from(&threads[i], j));
}

void threads_free(struct thread_view *threads, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(threads[i].frames);
	free(threads);
}
