/*
 * inspect_text.c - an inspection for people.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/cli/inspection.h"
#include "restorer/syscall_names.h"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Images it builds on, the nearest first. */
static void print_lineage(const struct image *image)
{
	uint64_t pages;
	const char *name = image ? image_parent(image, 1, &pages) : NULL;

	if (!name)
		return;
	printf("builds on %s", name);
	for (unsigned i = 2; (name = image_parent(image, i, &pages)); i++)
		printf(", %s", name);
	printf(" for %s of pages, with %s of its own\n", text_bytes(image_referred(image) * STORE_PAGE).s,
	       text_bytes(image_pages(image) * STORE_PAGE).s);
}

static void print_head(const struct inspection *inspection)
{
	const image_tree *tree = &inspection->view.tree;

	if (inspection->image)
		printf("%s%s%s: %s, saved %s on %s (%s) by fsnap %s\n", style_bold(stdout),
		       inspection->image, style_end(stdout), tree->comm,
		       text_age(tree->created_ns).s, tree->host,
		       text_bytes(image_file_bytes(inspection->view.image)).s, tree->writer);
	else
		printf("%sprocess %d%s: %s, running\n", style_bold(stdout), tree->root_pid,
		       style_end(stdout), tree->comm);
	printf("%s, %s\n", text_count(inspection->view.n_processes, "process", "processes").s,
	       text_count(tree->threads, "thread", "threads").s);
	print_lineage(inspection->view.image);
}

static void print_memory(const struct inspection *inspection, const struct process_view *process)
{
	struct memory_sum sums[MEMORY_SORTS];
	const char *separator = "";

	memory_sum(process, sums);
	printf("  memory    %s %s in %s: ", text_bytes(process->kept_bytes).s,
	       inspection->image ? "stored" : "resident",
	       text_count(process->mm.vmas.vmas_len, "mapping", "mappings").s);
	for (int sort = 0; sort < MEMORY_SORTS; sort++) {
		if (!sums[sort].mappings)
			continue;
		printf("%s%s %s", separator, memory_sort_names[sort],
		       text_bytes(sums[sort].bytes).s);
		separator = ", ";
	}
	putchar('\n');
}

static void print_descriptors(const struct inspection *inspection,
			      const struct process_view *process)
{
	for (u_int i = 0; i < process->process.fds.fds_len; i++) {
		const image_fd *fd = &process->process.fds.fds_val[i];
		const image_file *file = view_file(&inspection->view, fd->file);

		printf("  %s fd %3d  %-10s %s\n", i ? "         " : "files    ", fd->fd,
		       file ? file->kind : "?", file && file->label ? file->label : "");
	}
}

/* The number of arguments is the call's own business: three tell most. */
static void print_syscall(const struct thread_view *thread)
{
	const char *name = syscall_name(thread->syscall);

	if (name)
		printf("  in %s(%#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ", ...)", name, thread->args[0],
		       thread->args[1], thread->args[2]);
	else
		printf("  in system call %ld", thread->syscall);
}

static void print_frames(const struct thread_view *thread)
{
	for (size_t i = 0; i < thread->n_frames; i++) {
		const struct frame *frame = &thread->frames[i];
		const char *file = frame->file ? base_name(frame->file) : "no file";

		printf("    #%-2zu %016" PRIx64 " ", i, frame->address);
		if (frame->symbol)
			printf("%s+%#" PRIx64 " (%s)", frame->symbol, frame->into, file);
		else
			printf("? (%s+%#" PRIx64 ")", file, frame->in_file);
		puts(frame->interrupted ? "  <signal>" : "");
	}
}

static void print_thread(const image_thread *thread, const struct thread_view *looked)
{
	printf("  thread    %d %s", thread->tid, thread->comm);
	if (looked && looked->known) {
		printf("  %016" PRIx64 ": %s", looked->address,
		       looked->instruction[0] ? looked->instruction : "(bytes not to be had)");
		if (looked->syscall >= 0)
			print_syscall(looked);
	}
	putchar('\n');
	if (looked)
		print_frames(looked);
}

static const struct thread_view *looked_at(const struct inspection *inspection,
					   const image_thread *thread)
{
	for (size_t i = 0; i < inspection->n_threads; i++)
		if (inspection->threads[i].thread == thread)
			return &inspection->threads[i];
	return NULL;
}

static void print_process(const struct inspection *inspection, const struct process_view *process)
{
	const image_process *image = &process->process;

	printf("\n%sprocess %d%s %s", style_bold(stdout), image->pid, style_end(stdout),
	       process->comm);
	if (image->ppid)
		printf("  child of %d", image->ppid);
	if (image->zombie) {
		puts("  ended, not waited for");
		return;
	}
	printf("  group %d, session %d\n", image->pgid, image->sid);
	printf("  program   %s\n", inspection_exe(inspection, process));
	printf("  in        %s\n", image->cwd.path ? image->cwd.path : "?");
	print_memory(inspection, process);
	print_descriptors(inspection, process);
	for (u_int i = 0; i < image->threads.threads_len; i++)
		print_thread(&image->threads.threads_val[i],
			     looked_at(inspection, &image->threads.threads_val[i]));
}

/* Why names may be missing from what stands above. */
static void print_changed_files(const struct cli *cli, const struct inspection *inspection)
{
	for (size_t i = 0; i < inspection->view.n_mapped; i++) {
		const struct mapped_view *mapped = &inspection->view.mapped[i];
		char note[FSNAP_NOTES_MAX];

		if (!mapped->changed)
			continue;
		snprintf(note, sizeof(note), "%.3800s is no longer the file that was mapped",
			 mapped->mapped.identity.path);
		output_notes(cli, note);
	}
}

void inspection_print(const struct cli *cli, const struct inspection *inspection)
{
	print_head(inspection);
	for (size_t i = 0; i < inspection->view.n_processes; i++)
		print_process(inspection, &inspection->view.processes[i]);
	fflush(stdout);
	print_changed_files(cli, inspection);
}
