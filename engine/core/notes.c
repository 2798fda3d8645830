/*
 * notes.c - what a core file says about a process besides its memory.
 *
 * The order is the kernel's (fs/binfmt_elf.c): the thread that a debugger is to show first, then what belongs
 * to the process, then the other threads.
 */
#include <elf.h>
#include <signal.h>
#include <string.h>
#include <sys/procfs.h>

#include "engine/core/core.h"
#include "store/scope.h"

static void put_padding(FILE *out, size_t size)
{
	static const char zeroes[4];

	fwrite(zeroes, 1, -size & 3, out);
}

static void put(FILE *out, uint32_t type, const char *owner, const void *data, size_t size)
{
	Elf64_Nhdr head = { (Elf64_Word)strlen(owner) + 1, (Elf64_Word)size, type };

	fwrite(&head, sizeof(head), 1, out);
	fwrite(owner, 1, head.n_namesz, out);
	put_padding(out, head.n_namesz);
	fwrite(data, 1, size, out);
	put_padding(out, size);
}

/* --- threads ---------------------------------------------------------------------- */

static uint64_t pending_set(const image_siginfo *infos, u_int n)
{
	uint64_t set = 0;

	for (u_int i = 0; i < n; i++) {
		siginfo_t info;
		memcpy(&info, infos[i].raw, sizeof(infos[i].raw));
		if (info.si_signo > 0 && info.si_signo <= 64)
			set |= 1ull << (info.si_signo - 1);
	}
	return set;
}

static void put_thread(FILE *out, const image_process *process, const image_thread *thread,
		       const struct user_regs_struct *regs)
{
	struct elf_prstatus status = {
		.pr_pid = thread->tid,
		.pr_ppid = process->ppid,
		.pr_pgrp = process->pgid,
		.pr_sid = process->sid,
		.pr_fpvalid = 1,
		.pr_sighold = thread->sigmask,
		.pr_sigpend = pending_set(thread->pending.pending_val, thread->pending.pending_len),
	};
	_Static_assert(sizeof(status.pr_reg) == sizeof(*regs), "registers as ptrace(2) has them");
	memcpy(&status.pr_reg, regs, sizeof(*regs));
	put(out, NT_PRSTATUS, "CORE", &status, sizeof(status));
}

/* XSAVE begins with what FXSAVE had, which is the older note. */
static void put_vectors(FILE *out, const image_thread *thread)
{
	if (thread->xstate.xstate_len < sizeof(struct user_fpregs_struct))
		return;
	put(out, NT_FPREGSET, "CORE", thread->xstate.xstate_val, sizeof(struct user_fpregs_struct));
	put(out, NT_X86_XSTATE, "LINUX", thread->xstate.xstate_val, thread->xstate.xstate_len);
}

/* --- the process ------------------------------------------------------------------- */

static void read_arguments(struct process_view *process, char *to, size_t size)
{
	uint64_t length = process->mm.arg_end - process->mm.arg_start;

	size_t n = view_read(process, process->mm.arg_start, to, length < size - 1 ? length : size - 1);
	while (n && !to[n - 1])
		n--;
	for (size_t i = 0; i < n; i++)
		if (!to[i])
			to[i] = ' ';
}

static void put_process(FILE *out, struct process_view *view)
{
	const image_process *process = &view->process;
	const image_thread *leader = &process->threads.threads_val[0];
	struct elf_prpsinfo info = {
		.pr_state = process->stopped ? 3 : 0, /* an index into the letters R, S, D, T */
		.pr_sname = process->stopped ? 'T' : 'R',
		.pr_nice = (char)leader->sched.nice,
		.pr_uid = leader->creds.uid[0],
		.pr_gid = leader->creds.gid[0],
		.pr_pid = process->pid,
		.pr_ppid = process->ppid,
		.pr_pgrp = process->pgid,
		.pr_sid = process->sid,
	};
	snprintf(info.pr_fname, sizeof(info.pr_fname), "%.15s", view->comm);
	read_arguments(view, info.pr_psargs, sizeof(info.pr_psargs));
	put(out, NT_PRPSINFO, "CORE", &info, sizeof(info));
}

/* What has no name any more is in the core, as far as it was written. */
static bool is_file(const struct process_view *process, const image_vma *vma)
{
	const struct mapped_view *mapped = vma->kind == VMA_FILE ? view_mapped(process->tree, vma->object) : NULL;

	return mapped && !mapped->mapped.identity.ghost;
}

/* NT_FILE: count, unit of offsets; start, end, offset of each; then their names. */
static bool put_files(FILE *out, const struct process_view *process)
{
	const image_vma *vmas = process->mm.vmas.vmas_val;
	char *text = NULL;
	size_t size;
	FILE *body = open_memstream(&text, &size);
	uint64_t head[2] = { 0, STORE_PAGE };

	if (!body)
		return false;
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++)
		head[0] += is_file(process, &vmas[i]);
	fwrite(head, sizeof(head), 1, body);
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		uint64_t place[3] = { vmas[i].start, vmas[i].end, vmas[i].offset / STORE_PAGE };
		if (is_file(process, &vmas[i]))
			fwrite(place, sizeof(place), 1, body);
	}
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++)
		if (is_file(process, &vmas[i])) {
			const char *path = view_mapped(process->tree, vmas[i].object)->mapped.identity.path;
			fwrite(path, 1, strlen(path) + 1, body);
		}
	bool whole = scope_end_text(body, &text);
	if (whole && head[0])
		put(out, NT_FILE, "CORE", text, size);
	free(text);
	return whole;
}

bool core_notes(struct process_view *process, FILE *out)
{
	const image_thread *threads = process->process.threads.threads_val;
	siginfo_t no_signal = { 0 }; /* nothing has ended it */
	bool first = true, whole = true;

	for (u_int i = 0; i < process->process.threads.threads_len; i++) {
		const struct user_regs_struct *regs = view_regs(&threads[i]);
		if (!regs) /* a main thread that has ended */
			continue;
		put_thread(out, &process->process, &threads[i], regs);
		if (first) {
			put_process(out, process);
			put(out, NT_SIGINFO, "CORE", &no_signal, sizeof(no_signal));
			put(out, NT_AUXV, "CORE", process->mm.auxv.auxv_val, process->mm.auxv.auxv_len);
			whole = put_files(out, process);
		}
		put_vectors(out, &threads[i]);
		first = false;
	}
	return whole;
}
