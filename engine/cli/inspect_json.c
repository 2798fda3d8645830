/*
 * inspect_json.c - an inspection for programs.
 *
 * "processes" is the same for an image and for a running tree.  For an image,
 * "records" follows: everything it says, as store/image.x declares it.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "engine/cli/inspection.h"
#include "image_json.h"
#include "restorer/syscall_names.h"
#include "store/scope.h"

/* Addresses as text: 64 bits do not fit the numbers of most JSON readers. */
static void print_address(struct json *json, const char *key, uint64_t address)
{
	char text[24];

	snprintf(text, sizeof(text), "%#" PRIx64, address);
	json_string(json_key(json, key), text);
}

static void print_memory(struct json *json, const struct inspection *inspection,
			 const struct process_view *process)
{
	struct memory_sum sums[MEMORY_SORTS];

	memory_sum(process, sums);
	json_object(json_key(json, "memory"));
	json_u64(json_key(json, inspection->image ? "stored_bytes" : "resident_bytes"),
		 process->kept_bytes);
	json_u64(json_key(json, "mappings"), process->mm.vmas.vmas_len);
	for (int sort = 0; sort < MEMORY_SORTS; sort++) {
		json_object(json_key(json, memory_sort_names[sort]));
		json_u64(json_key(json, "mappings"), sums[sort].mappings);
		json_u64(json_key(json, "bytes"), sums[sort].bytes);
		json_close(json);
	}
	json_close(json);
}

static void print_descriptors(struct json *json, const struct inspection *inspection,
			      const image_process *process)
{
	json_array(json_key(json, "descriptors"));
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		const image_fd *fd = &process->fds.fds_val[i];
		const image_file *file = view_file(&inspection->view, fd->file);

		json_object(json);
		json_i64(json_key(json, "fd"), fd->fd);
		json_bool(json_key(json, "cloexec"), fd->cloexec);
		json_u64(json_key(json, "file"), fd->file);
		if (file) {
			json_string(json_key(json, "kind"), file->kind);
			json_string(json_key(json, "label"), file->label);
			json_u64(json_key(json, "flags"), file->flags);
			json_u64(json_key(json, "pos"), file->pos);
		}
		json_close(json);
	}
	json_close(json);
}

static void print_stack(struct json *json, const struct thread_view *thread)
{
	json_array(json_key(json, "stack"));
	for (size_t i = 0; i < thread->n_frames; i++) {
		const struct frame *frame = &thread->frames[i];

		json_object(json);
		print_address(json, "address", frame->address);
		json_string(json_key(json, "symbol"), frame->symbol);
		if (frame->symbol)
			json_u64(json_key(json, "offset"), frame->into);
		json_string(json_key(json, "file"), frame->file);
		print_address(json, "file_address", frame->in_file);
		json_bool(json_key(json, "signal"), frame->interrupted);
		json_close(json);
	}
	json_close(json);
}

static void print_looked_at(struct json *json, const struct thread_view *thread, bool stacks)
{
	print_address(json, "address", thread->address);
	json_string(json_key(json, "instruction"),
		    thread->instruction[0] ? thread->instruction : NULL);
	if (thread->syscall >= 0) {
		json_object(json_key(json, "syscall"));
		json_i64(json_key(json, "number"), thread->syscall);
		json_string(json_key(json, "name"), syscall_name(thread->syscall));
		json_array(json_key(json, "arguments"));
		for (int i = 0; i < 6; i++) {
			char text[24];
			snprintf(text, sizeof(text), "%#" PRIx64, thread->args[i]);
			json_string(json, text);
		}
		json_close(json);
		json_close(json);
	}
	if (stacks)
		print_stack(json, thread);
}

static void print_threads(struct json *json, const struct cli *cli,
			  const struct inspection *inspection, const image_process *process)
{
	json_array(json_key(json, "threads"));
	for (u_int i = 0; i < process->threads.threads_len; i++) {
		const image_thread *thread = &process->threads.threads_val[i];

		json_object(json);
		json_i64(json_key(json, "tid"), thread->tid);
		json_string(json_key(json, "comm"), thread->comm);
		for (size_t j = 0; j < inspection->n_threads; j++)
			if (inspection->threads[j].thread == thread &&
			    inspection->threads[j].known)
				print_looked_at(json, &inspection->threads[j], cli->stacks);
		json_close(json);
	}
	json_close(json);
}

static void print_process(struct json *json, const struct cli *cli,
			  const struct inspection *inspection, const struct process_view *process)
{
	const image_process *image = &process->process;

	json_object(json);
	json_i64(json_key(json, "pid"), image->pid);
	json_i64(json_key(json, "ppid"), image->ppid);
	json_i64(json_key(json, "pgid"), image->pgid);
	json_i64(json_key(json, "sid"), image->sid);
	json_string(json_key(json, "comm"), process->comm);
	json_bool(json_key(json, "zombie"), image->zombie);
	if (!image->zombie) {
		json_string(json_key(json, "exe"), inspection_exe(inspection, process));
		json_string(json_key(json, "cwd"), image->cwd.path);
		print_memory(json, inspection, process);
		print_descriptors(json, inspection, image);
		print_threads(json, cli, inspection, image);
	}
	json_close(json);
}

/* --- records ---------------------------------------------------------------------- */

static void print_record(struct json *json, struct image *image,
			 const struct image_record_kind *kind, size_t index)
{
	cleanup_free void *record = calloc(1, kind->size);

	if (record && !image_get(image, kind->kind, index, kind->xdr, record, NULL))
		kind->json(json, record);
	else
		json_null(json);
	if (record)
		xdr_free(kind->xdr, record);
}

static void print_hint(struct json *json, struct image *image, const struct image_record_kind *kind, size_t index)
{
	cleanup_free void *record = calloc(1, kind->size);

	if (record && !image_hint_get(image, kind->kind, index, kind->xdr, record, NULL))
		kind->json(json, record);
	else
		json_null(json);
	if (record)
		xdr_free(kind->xdr, record);
}

static void print_records(struct json *json, struct image *image)
{
	const struct image_record_kind *kind;

	image_hints(image, NULL); /* damaged, they are none */
	json_object(json_key(json, "records"));
	for (uint32_t number = IMAGE_TREE; (kind = image_record_kind(number)); number++) {
		json_array(json_key(json, kind->name));
		for (size_t i = 0; i < image_count(image, number); i++)
			print_record(json, image, kind, i);
		for (size_t i = 0; i < image_hint_count(image, number); i++)
			print_hint(json, image, kind, i);
		json_close(json);
	}
	json_close(json);
}

/* Images it builds on, the nearest first. */
static void print_lineage(struct json *json, const struct image *image)
{
	uint64_t pages;
	const char *name;

	json_u64(json_key(json, "referred_bytes"), image_referred(image) * STORE_PAGE);
	json_array(json_key(json, "builds_on"));
	for (unsigned i = 1; (name = image_parent(image, i, &pages)); i++)
		json_string(json, name);
	json_close(json);
}

void inspection_write_json(struct json *json, const struct cli *cli, const struct inspection *inspection)
{
	struct image *image = inspection->view.image;

	json_object(json);
	json_bool(json_key(json, "running"), !image);
	if (image) {
		json_string(json_key(json, "image"), inspection->image);
		json_u64(json_key(json, "created_ns"), image_created_ns(image));
		json_u64(json_key(json, "file_bytes"), image_file_bytes(image));
		json_u64(json_key(json, "page_bytes"), image_pages(image) * STORE_PAGE);
		print_lineage(json, image);
	}
	json_array(json_key(json, "processes"));
	for (size_t i = 0; i < inspection->view.n_processes; i++)
		print_process(json, cli, inspection, &inspection->view.processes[i]);
	json_close(json);
	if (image)
		print_records(json, image);
	json_close(json);
}

void inspection_print_json(const struct cli *cli, const struct inspection *inspection)
{
	struct json json = output_json();

	inspection_write_json(&json, cli, inspection);
	json_finish(&json);
}
