/*
 * core.c - fsnap_core(): the file.
 *
 *	ELF header, program headers, (one section header, if the program headers are more than fit into e_phnum),
 *	notes, and from the next page on the content of segments
 *
 * It gets its name when it is whole, and is as private as the image.
 */
#include "engine/core/core.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/fsnap.h"
#include "engine/sized.h"
#include "store/scope.h"

#define CHUNK (1u << 20)

struct core {
	struct process_view *process;
	struct core_segments segments;
	char *notes;
	size_t notes_size;
	int fd;
	uint64_t written;  /* bytes of memory */
	uint64_t file_end; /* how long the file is going to be */
};

static int write_at(const struct core *core, const void *data, size_t size, uint64_t at, struct fsnap_error *err)
{
	while (size) {
		ssize_t n = pwrite(core->fd, data, size, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(err, FSNAP_E_SYSTEM, n ? errno : EIO, "writing a core file");
		data = (const char *)data + n;
		at += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

/* --- headers ------------------------------------------------------------------------- */

static Elf64_Ehdr elf_header(size_t headers)
{
	bool many = headers >= PN_XNUM; /* then sh_info of the first section has their number (elf(5)) */

	return (Elf64_Ehdr){
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = many ? PN_XNUM : (Elf64_Half)headers,
		.e_shoff = many ? sizeof(Elf64_Ehdr) + headers * sizeof(Elf64_Phdr) : 0,
		.e_shentsize = many ? sizeof(Elf64_Shdr) : 0,
		.e_shnum = many,
	};
}

static int write_headers(struct core *core, uint64_t *offsets, struct fsnap_error *err)
{
	size_t n = core->segments.n, headers = n + 1;
	Elf64_Ehdr head = elf_header(headers);
	Elf64_Shdr section = { .sh_type = SHT_NULL, .sh_size = 1, .sh_info = (Elf64_Word)headers };
	cleanup_free Elf64_Phdr *table = calloc(headers, sizeof(*table));
	uint64_t at = sizeof(head) + headers * sizeof(*table) + (head.e_shnum ? sizeof(section) : 0);

	if (!table)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the headers of a core file");
	table[0] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = at, .p_filesz = core->notes_size, .p_align = 4 };
	if (write_at(core, core->notes, core->notes_size, at, err) < 0)
		return -1;
	at = (at + core->notes_size + STORE_PAGE - 1) & ~(uint64_t)(STORE_PAGE - 1);
	for (size_t i = 0; i < n; i++) {
		const struct core_segment *segment = &core->segments.all[i];
		table[i + 1] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_flags = segment->flags, .p_offset = at,
					     .p_vaddr = segment->start, .p_filesz = segment->file_bytes,
					     .p_memsz = segment->size, .p_align = STORE_PAGE };
		offsets[i] = at;
		at += segment->file_bytes;
	}
	core->file_end = at;
	if (head.e_shnum && write_at(core, &section, sizeof(section), head.e_shoff, err) < 0)
		return -1;
	if (write_at(core, &head, sizeof(head), 0, err) < 0)
		return -1;
	return write_at(core, table, headers * sizeof(*table), head.e_phoff, err);
}

/* --- memory --------------------------------------------------------------------------- */

static bool is_zero(const char *page)
{
	return !page[0] && !memcmp(page, page + 1, STORE_PAGE - 1);
}

/* Pages of zeroes stay holes. */
static int write_pages(struct core *core, const char *pages, size_t size, uint64_t at, struct fsnap_error *err)
{
	for (size_t done = 0; done < size;) {
		size_t end = done;
		while (end < size && !is_zero(pages + end))
			end += STORE_PAGE;
		if (write_at(core, pages + done, end - done, at + done, err) < 0)
			return -1;
		core->written += end - done;
		for (done = end; done < size && is_zero(pages + done); done += STORE_PAGE)
			;
	}
	return 0;
}

static int write_segment(struct core *core, const struct core_segment *segment, uint64_t offset, char *chunk,
			 struct fsnap_error *err)
{
	for (uint64_t done = 0; done < segment->file_bytes; done += CHUNK) {
		uint64_t left = segment->file_bytes - done;
		size_t size = left < CHUNK ? (size_t)left : CHUNK;
		size_t n = view_read(core->process, segment->start + done, chunk, size);

		memset(chunk + n, 0, size - n); /* what cannot be read (a file behind its end) */
		if (write_pages(core, chunk, size, offset + done, err) < 0)
			return -1;
	}
	return 0;
}

static int write_core(struct core *core, struct fsnap_error *err)
{
	cleanup_free uint64_t *offsets = calloc(core->segments.n + 1, sizeof(*offsets));
	cleanup_free char *chunk = malloc(CHUNK);

	if (!offsets || !chunk)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a core file");
	if (write_headers(core, offsets, err) < 0)
		return -1;
	for (size_t i = 0; i < core->segments.n; i++)
		if (write_segment(core, &core->segments.all[i], offsets[i], chunk, err) < 0)
			return -1;
	if (ftruncate(core->fd, (off_t)core->file_end) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "writing a core file");
	return 0;
}

/* --- the whole -------------------------------------------------------------------------- */

static int gather(struct core *core, struct fsnap_error *err)
{
	FILE *notes = open_memstream(&core->notes, &core->notes_size);

	bool whole = notes && core_notes(core->process, notes);
	if (!notes || !scope_end_text(notes, &core->notes) || !whole)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the notes of a core file");
	return core_segments(core->process, &core->segments, err);
}

static int save(struct core *core, const char *path, struct fsnap_error *err)
{
	char part[4096];
	struct stat stat;

	if (lstat(path, &stat) == 0 && !S_ISREG(stat.st_mode)) {
		fail(err, FSNAP_E_USAGE, 0, "%s is no ordinary file", path);
		return error_hint(err, "a core file has holes: it cannot go into a pipe or device");
	}
	if (snprintf(part, sizeof(part), "%s.XXXXXX", path) >= (int)sizeof(part))
		return fail(err, FSNAP_E_USAGE, ENAMETOOLONG, "%s", path);
	core->fd = mkostemp(part, O_CLOEXEC);
	if (core->fd < 0) {
		fail(err, error_of_name(errno), errno, "writing %s", path);
		return error_hint(err, "-o FILE says where else");
	}
	int result = write_core(core, err);
	if (close(core->fd) < 0 && result == 0)
		result = fail(err, FSNAP_E_SYSTEM, errno, "writing a core file");
	if (result == 0 && rename(part, path) < 0)
		result = fail(err, FSNAP_E_SYSTEM, errno, "naming %s", path);
	if (result < 0) {
		unlink(part);
		return error_context(err, "%s", path);
	}
	return 0;
}

static struct process_view *choose(struct tree_view *view, pid_t pid, struct fsnap_error *err)
{
	if (!pid)
		pid = view->tree.root_pid;
	for (size_t i = 0; i < view->n_processes; i++) {
		struct process_view *process = &view->processes[i];
		if (process->process.pid != pid)
			continue;
		if (!process->process.zombie)
			return process;
		fail(err, FSNAP_E_NO_PROCESS, 0, "process %d had ended: it has no memory and no threads", pid);
		return NULL;
	}
	fail(err, FSNAP_E_NO_PROCESS, 0, "the image has no process %d", pid);
	error_hint(err, "fsnap inspect shows those it has");
	return NULL;
}

static int make(struct tree_view *view, const struct fsnap_core_options *options, struct fsnap_core_report *report,
		struct fsnap_error *err)
{
	struct core core = { .process = choose(view, options->pid, err), .fd = -1 };
	char path[64];

	if (!core.process)
		return -1;
	report->pid = core.process->process.pid;
	report->threads = core.process->process.threads.threads_len;
	snprintf(path, sizeof(path), "core.%d", report->pid);
	const char *output = options->output ? options->output : path;
	snprintf(report->output, sizeof(report->output), "%s", output);
	int result = gather(&core, err) < 0 ? -1 : save(&core, output, err);
	free(core.notes);
	free(core.segments.all);
	report->bytes = core.written;
	report->file_bytes = core.file_end;
	const struct mapped_view *exe = view_mapped(view, core.process->mm.exe);
	snprintf(report->exe, sizeof(report->exe), "%s", exe ? exe->mapped.identity.path : "");
	return result;
}

static int open_and_make(const struct fsnap_core_options *options, struct fsnap_core_report *report,
			 struct fsnap_error *err)
{
	char dir[4096];
	struct tree_view view;

	if (options->store)
		snprintf(dir, sizeof(dir), "%s", options->store);
	else if (fsnap_default_store(dir, sizeof(dir), err) < 0)
		return -1;
	struct store *store = store_open(dir, STORE_READ, err);
	struct image *image = store ? image_open(store, options->image, err) : NULL;
	/* A core of damaged pages would be believed. */
	int result = !image || image_verify_blocks(image, 0, image_blocks(image), err) < 0 ?
			     -1 : view_of_image(&view, image, err);
	if (result == 0) {
		snprintf(report->image, sizeof(report->image), "%s", image_name(image));
		result = make(&view, options, report, err);
		view_free(&view);
	}
	if (result < 0 && image)
		error_context(err, "image %s", image_name(image));
	if (image)
		image_close(image);
	if (store)
		store_close(store);
	return result;
}

int fsnap_core(const struct fsnap_core_options *options, struct fsnap_core_report *report, struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_core_options known;
	struct fsnap_core_report own = { 0 };

	sized_take(&known, sizeof(known), options);
	int result = open_and_make(&known, &own, err ? err : &ignored);
	if (result == 0)
		sized_tell(report, &own, sizeof(own));
	return result;
}
