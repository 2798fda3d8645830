/*
 * records.c - what was collected becomes the records of the image (store/image.x).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/page_kinds.h"
#include "store/scope.h"

static int put(struct dump *dump, uint32_t kind, const char *name, xdrproc_t proc, void *object,
	       struct fsnap_error *err)
{
	return image_writer_put(dump->writer, kind, true, name, proc, object, err);
}

static int put_tree(struct dump *dump, image_tree *tree, struct fsnap_error *err)
{
	const struct process *root = dump->tree.processes[0];
	char host[256] = "";
	gethostname(host, sizeof(host) - 1);
	tree->root_pid = root->pid;
	tree->comm = (char *)root->comm;
	tree->host = host;
	tree->writer = (char *)fsnap_version();
	tree->processes = dump->report->processes;
	tree->threads = dump->report->threads;
	tree->hold = dump->hold;
	clocks_put(dump, tree);
	cleanup_free char *boot_id = tree->boot_id;
	if (!boot_id)
		tree->boot_id = (char *)"";
	if (put(dump, IMAGE_TREE, "tree", (xdrproc_t)xdr_image_tree, tree, err) < 0)
		return -1;
	image_machine machine = { 0 };
	int result = readers_machine(dump, &machine, err);
	if (result == 0)
		result = put(dump, IMAGE_MACHINE, "machine", (xdrproc_t)xdr_image_machine, &machine, err);
	readers_leave_machine(dump, &machine);
	return result;
}

/* XDR cannot write NULL strings: a zombie's record is mostly empty, but well-formed. */
static int put_process(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	image_process record = process->image;
	if (!record.cwd.path)
		record.cwd.path = (char *)"";
	if (!record.root.path)
		record.root.path = (char *)"";
	size_t ended = record.leader_ended ? 1 : 0;
	cleanup_free image_thread *threads = calloc(process->n_tasks + ended, sizeof(*threads));
	if (!threads)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "threads");
	if (ended)
		threads[0] = process->ended;
	for (size_t i = 0; i < process->n_tasks; i++)
		threads[ended + i] = process->tasks[i]->image;
	record.threads.threads_val = threads;
	record.threads.threads_len = (u_int)(process->n_tasks + ended);
	return put(dump, IMAGE_PROCESS, "process", (xdrproc_t)xdr_image_process, &record, err);
}

/* Neighbouring runs are mostly of one space. */
static int count_kinds(struct dump *dump, struct fsnap_error *err)
{
	struct fsnap_page_kinds *kinds = &dump->report->kinds;
	cleanup_free const image_mm **mm_of = calloc(dump->next_space + 1, sizeof(image_mm *));
	cleanup_free const image_ghost **ghost_of = calloc(dump->next_space + 1, sizeof(image_ghost *));
	if (!mm_of || !ghost_of)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "kinds of pages");
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		mm_of[dump->tree.processes[i]->mm.id] = &dump->tree.processes[i]->mm;
	for (size_t i = 0; i < dump->n_ghosts; i++)
		ghost_of[dump->ghosts[i].id] = &dump->ghosts[i];
	for (size_t i = 0; i < dump->n_runs; i++) {
		const struct page_run *run = &dump->runs[i];
		if (ghost_of[run->space])
			page_kinds_add_ghost(kinds, ghost_of[run->space], run, 1);
		else if (mm_of[run->space])
			page_kinds_add(kinds, mm_of[run->space], run, 1);
	}
	return 0;
}

static int put_labels(struct dump *dump, struct fsnap_error *err)
{
	const char *const *words = dump->options->labels;
	u_int n = 0;
	while (words && words[n])
		n++;
	cleanup_free image_label *labels = calloc(n + 1, sizeof(*labels));
	int result = labels ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "labels");
	for (u_int i = 0; i < n && result == 0; i++) {
		size_t name = strcspn(words[i], "=");
		labels[i].name = strndup(words[i], name);
		labels[i].value = (char *)words[i] + name + (words[i][name] == '=');
		if (!labels[i].name)
			result = fail(err, FSNAP_E_NOMEM, ENOMEM, "labels");
	}
	if (n && result == 0)
		result = image_writer_put(dump->writer, IMAGE_LABELS, false, "labels", (xdrproc_t)xdr_image_labels,
					  &(image_labels){ { n, labels } }, err);
	for (u_int i = 0; labels && i < n; i++)
		free(labels[i].name);
	return result;
}

int records_put(struct dump *dump, image_tree *tree, struct fsnap_error *err)
{
	if (put_tree(dump, tree, err) < 0 || put_labels(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->n_ghosts; i++)
		if (put(dump, IMAGE_GHOST, "ghost", (xdrproc_t)xdr_image_ghost, &dump->ghosts[i], err) < 0)
			return -1;
	for (size_t i = 0; i < dump->n_mapped; i++)
		if (put(dump, IMAGE_MAPPED, "mapped", (xdrproc_t)xdr_image_mapped, &dump->mapped[i].image,
			err) < 0)
			return -1;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (dump->tree.processes[i]->mm.id &&
		    put(dump, IMAGE_MM, "mm", (xdrproc_t)xdr_image_mm, &dump->tree.processes[i]->mm, err) < 0)
			return -1;
	if (files_put(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (put_process(dump, dump->tree.processes[i], err) < 0)
			return -1;
	if (put(dump, IMAGE_CGROUPS, "cgroups", (xdrproc_t)xdr_image_cgroups, &dump->cgroups, err) < 0)
		return -1;
	if (ipc_any(&dump->ipc) &&
	    put(dump, IMAGE_IPC, "ipc", (xdrproc_t)xdr_image_ipc, &dump->ipc, err) < 0)
		return -1;
	if (count_kinds(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->n_runs; i++)
		if (image_writer_add_run(dump->writer, &dump->runs[i], err) < 0)
			return -1;
	return 0;
}
