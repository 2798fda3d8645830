/*
 * view.c - what running trees and images have in common.
 */
#include "engine/inspect/view.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/inspect/elf.h"
#include "engine/tree.h"

#define NOT_TRIED (-2)

void *view_add(void *array, size_t *count, size_t size, struct fsnap_error *err)
{
	/* Room doubles at powers of two, so the count tells how much there is. */
	if ((*count & (*count - 1)) == 0) {
		void *more = realloc(array, (*count ? 2 * *count : 1) * size);
		if (!more) {
			fail(err, FSNAP_E_NOMEM, 0, "no memory to look at the tree");
			return NULL;
		}
		array = more;
	}
	memset((char *)array + *count * size, 0, size);
	(*count)++;
	return array;
}

static void free_array(void *array, size_t count, size_t size, xdrproc_t proc)
{
	for (size_t i = 0; i < count; i++)
		xdr_free(proc, (char *)array + i * size);
	free(array);
}

void view_free(struct tree_view *view)
{
	view_let_go(view);
	for (size_t i = 0; i < view->n_processes; i++) {
		struct process_view *process = &view->processes[i];

		elf_close(process->vdso);
		xdr_free((xdrproc_t)xdr_image_process, (char *)&process->process);
		xdr_free((xdrproc_t)xdr_image_mm, (char *)&process->mm);
	}
	free(view->processes);
	for (size_t i = 0; i < view->n_mapped; i++) {
		elf_close(view->mapped[i].elf);
		if (view->mapped[i].fd >= 0)
			close(view->mapped[i].fd);
		xdr_free((xdrproc_t)xdr_image_mapped, (char *)&view->mapped[i].mapped);
	}
	free(view->mapped);
	free_array(view->files, view->n_files, sizeof(image_file), (xdrproc_t)xdr_image_file);
	xdr_free((xdrproc_t)xdr_image_tree, (char *)&view->tree);
	xdr_free((xdrproc_t)xdr_image_machine, (char *)&view->machine);
	if (view->running) {
		tree_free(view->running);
		free(view->running);
	}
	*view = (struct tree_view){ 0 };
}

/* --- finding ---------------------------------------------------------------------- */

const image_vma *view_vma(const struct process_view *process, uint64_t address)
{
	const image_vma *vmas = process->mm.vmas.vmas_val;
	size_t low = 0, high = process->mm.vmas.vmas_len;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (vmas[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < process->mm.vmas.vmas_len && vmas[low].start <= address ? &vmas[low] : NULL;
}

struct mapped_view *view_mapped(const struct tree_view *view, unsigned id)
{
	for (size_t i = 0; i < view->n_mapped; i++)
		if (view->mapped[i].mapped.id == id)
			return &view->mapped[i];
	return NULL;
}

const image_file *view_file(const struct tree_view *view, unsigned id)
{
	for (size_t i = 0; i < view->n_files; i++)
		if (view->files[i].id == id)
			return &view->files[i];
	return NULL;
}

const struct user_regs_struct *view_regs(const image_thread *thread)
{
	if (thread->regs.regs_len < sizeof(struct user_regs_struct))
		return NULL;
	return (const struct user_regs_struct *)thread->regs.regs_val;
}

/* --- memory ----------------------------------------------------------------------- */

size_t view_read(struct process_view *process, uint64_t address, void *to, size_t n)
{
	if (!process->tree->running)
		return image_memory_read(process, address, to, n);
	struct iovec local = { to, n };
	struct iovec remote = { (void *)(uintptr_t)address, n };
	ssize_t got = process_vm_readv(process->process.pid, &local, 1, &remote, 1, 0);
	return got > 0 ? (size_t)got : 0;
}

/* Only the file that was mapped explains the addresses in it: one that was replaced since (an
 * update of the system) would give wrong names without a warning. */
static bool is_same_file(int fd, const image_identity *identity)
{
	struct stat stat;

	return !fstat(fd, &stat) && S_ISREG(stat.st_mode) &&
	       (uint64_t)stat.st_size == identity->size &&
	       stat.st_mtim.tv_sec * 1000000000ll + stat.st_mtim.tv_nsec == identity->mtime_ns;
}

static void open_mapped(const struct tree_view *view, struct mapped_view *mapped)
{
	const image_identity *identity = &mapped->mapped.identity;

	mapped->fd = -1;
	if (mapped->way[0])
		mapped->fd = open(mapped->way, O_RDONLY | O_CLOEXEC);
	if (mapped->fd < 0)
		mapped->fd = open(identity->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (mapped->fd >= 0 && !view->running && !is_same_file(mapped->fd, identity)) {
		close(mapped->fd);
		mapped->fd = -1;
		mapped->changed = true;
	}
}

size_t view_read_mapped(struct tree_view *view, struct mapped_view *mapped, uint64_t offset,
			void *to, size_t n)
{
	if (view->image && mapped->mapped.identity.ghost)
		return image_space_read(view, mapped->mapped.identity.ghost, offset, to, n);
	if (mapped->fd == NOT_TRIED)
		open_mapped(view, mapped);
	if (mapped->fd < 0)
		return 0;
	ssize_t got = pread(mapped->fd, to, n, (off_t)offset);
	return got > 0 ? (size_t)got : 0;
}

/* --- ELF files --------------------------------------------------------------------- */

static size_t read_file_of(void *arg, uint64_t offset, void *to, size_t n)
{
	struct mapped_view *mapped = arg;

	return view_read_mapped(mapped->tree, mapped, offset, to, n);
}

static size_t read_vdso_of(void *arg, uint64_t offset, void *to, size_t n)
{
	struct process_view *process = arg;

	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (vma->kind == VMA_SPECIAL && !strcmp(vma->name, "[vdso]") &&
		    offset < vma->end - vma->start)
			return view_read(process, vma->start + offset, to, n);
	}
	return 0;
}

static struct elf *vdso_of(struct process_view *process)
{
	if (!process->vdso_tried)
		process->vdso = elf_open(read_vdso_of, process);
	process->vdso_tried = true;
	return process->vdso;
}

static struct elf *elf_of(struct mapped_view *mapped)
{
	if (!mapped->elf_tried)
		mapped->elf = elf_open(read_file_of, mapped);
	mapped->elf_tried = true;
	return mapped->elf;
}

struct elf *view_elf(struct process_view *process, const image_vma *vma, uint64_t *bias)
{
	struct elf *elf = NULL;
	uint64_t address;

	if (vma->kind == VMA_FILE) {
		struct mapped_view *mapped = view_mapped(process->tree, vma->object);
		elf = mapped ? elf_of(mapped) : NULL;
	} else if (vma->kind == VMA_SPECIAL) {
		elf = vdso_of(process);
	}
	/* The vDSO has no file: its mapping starts where its ELF header is. */
	uint64_t offset = vma->kind == VMA_FILE ? vma->offset : 0;
	if (!elf || !elf_address(elf, offset, &address))
		return NULL;
	*bias = vma->start - address;
	return elf;
}
