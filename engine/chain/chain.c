/*
 * chain.c - what is known of a tree from one dump to the next, and a dump's part in it.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/chain/chain.h"
#include "engine/procfs.h"
#include "store/scope.h"

#define UNTRACKED 512	  /* pages of a process, most of them of libraries */
#define UNTRACKED_MORE 32 /* than there were last time */

struct chain *chain_new(void)
{
	return calloc(1, sizeof(struct chain));
}

void chain_free(struct chain *chain)
{
	if (!chain)
		return;
	for (size_t i = 0; i < chain->n_members; i++)
		if (chain->is_kept)
			track_leave(&chain->members[i].track);
		else
			track_close(&chain->members[i].track);
	for (size_t i = 0; i < chain->n_members; i++)
		mappings_forget(&chain->members[i].mappings);
	image_close(chain->open);
	mapped_free_all(chain->mapped, chain->n_mapped);
	readers_free(&chain->readers);
	free(chain->members);
	free(chain);
}

/* --- who is in it -------------------------------------------------------------------------- */

static uint64_t start_of(const struct process *process)
{
	struct procfs_stat stat;
	if (process->start)
		return process->start;
	return procfs_stat(process->proc, "stat", &stat, NULL) == 0 ? stat.start_time : 0;
}

static struct chain_member *find_member(struct chain *chain, pid_t pid, uint64_t start)
{
	for (size_t i = 0; i < chain->n_members; i++)
		if (chain->members[i].pid == pid && chain->members[i].start == start)
			return &chain->members[i];
	return NULL;
}

struct chain_member *chain_member_of(struct chain *chain, const struct process *process)
{
	return find_member(chain, process->pid, start_of(process));
}

/* Members of whose memory nothing is left: they have ended, or execute another program. */
static void drop_dead(struct chain *chain)
{
	size_t n = 0;
	for (size_t i = 0; i < chain->n_members; i++) {
		struct chain_member *member = &chain->members[i];
		if (track_is_alive(&member->track)) {
			chain->members[n++] = *member;
			continue;
		}
		track_close(&member->track);
		mappings_forget(&member->mappings);
	}
	chain->n_members = n;
}

/* Is it the memory that the process has now? Behind execve(2) the old one may be alive elsewhere (vfork). */
static int admit(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct chain *chain = dump->chain;
	uint64_t start = start_of(process);
	struct fsnap_error why = { 0 };
	struct chain_member *member = find_member(chain, process->pid, start);
	if (!member) {
		struct track track;
		if (track_open(&track, process, &why) < 0) {
			if (why.code != FSNAP_E_TARGET_DIED)
				dump_note(dump, "copied each time while it stands still: %s", why.message);
			return 0;
		}
		member = grow(chain->members, chain->n_members, sizeof(*member), err);
		if (!member) {
			track_close(&track);
			return -1;
		}
		chain->members = member;
		member += chain->n_members++;
		*member = (struct chain_member){ .pid = process->pid, .start = start, .track = track };
	}
	if (mappings_are_registered(dump, process))
		return 0;
	size_t n;
	const struct vmas_range *bare = readers_bare(dump, process, &n);
	if (track_register(&member->track, process, err) < 0 ||
	    (bare && track_register_aside(&member->track, process, bare, n, err) < 0))
		return -1;
	mappings_note_registered(dump, process);
	return 0;
}

/* When the list of members does not move any more. */
static int link_member(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct chain_member *member = find_member(dump->chain, process->pid, start_of(process));
	if (!member)
		return 0;
	process->chained = calloc(1, sizeof(*process->chained));
	if (!process->chained)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", process->pid);
	process->chained->member = member;
	process->chained->based = dump->parent && member->based;
	process->chained->untracked = UNTRACKED;
	if (dump->chain->untracked)
		process->chained->untracked = dump->chain->untracked / dump->chain->n_members + UNTRACKED_MORE;
	return 0;
}

static int for_each_process(struct dump *dump, int (*fn)(struct dump *, struct process *, struct fsnap_error *),
			    struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (dump->tree.processes[i]->prepared && fn(dump, dump->tree.processes[i], err) < 0)
			return -1;
	for (size_t i = 0; i < dump->known.n_processes; i++)
		if (dump->known.processes[i]->prepared && fn(dump, dump->known.processes[i], err) < 0)
			return -1;
	return 0;
}

/* --- the base ---------------------------------------------------------------------------------- */

static int forget_base(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	(void)dump, (void)err;
	if (process->chained)
		process->chained->based = false;
	return 0;
}

static void do_without(struct dump *dump)
{
	if (dump->parent != dump->chain->open)
		image_close(dump->parent);
	dump->parent = NULL;
	for_each_process(dump, forget_base, NULL);
	chain_begin(dump);
}

static void open_base(struct dump *dump)
{
	struct chain *chain = dump->chain;
	uint8_t uuid[16] = { 0 };
	struct fsnap_error why = { 0 };
	if (!chain->base[0])
		return;
	dump->parent = chain->open ? chain->open : image_open(dump->store, chain->base, &why);
	if (dump->parent)
		image_uuid(dump->parent, uuid);
	if (dump->parent && memcmp(uuid, chain->uuid, sizeof(uuid)) == 0)
		return;
	if (dump->parent || why.code == FSNAP_E_IMAGE_MISSING)
		dump_note(dump, "stored in full: %s, the image before, is not there any more", chain->base);
	else
		dump_note(dump, "stored in full: the image before cannot be built on: %s", why.message);
	do_without(dump);
}

static struct process *process_of_space(struct dump *dump, unsigned space)
{
	struct tree *trees[] = { &dump->tree, &dump->known };
	for (int t = 0; t < 2; t++)
		for (size_t i = 0; i < trees[t]->n_processes; i++) {
			struct chained *chained = trees[t]->processes[i]->chained;
			if (chained && chained->based && chained->member->space == space)
				return trees[t]->processes[i];
		}
	return NULL;
}

/* Huge pages and guard regions that are still there are not asked for again: where they were is in the base. */
static int read_spans(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; dump->parent && i < image_count(dump->parent, IMAGE_MM); i++) {
		image_mm mm = { 0 };
		if (image_get(dump->parent, IMAGE_MM, i, (xdrproc_t)xdr_image_mm, &mm, err) < 0)
			return -1;
		struct process *process = process_of_space(dump, mm.id);
		if (process) {
			process->chained->huge = mm.huge.huge_val;
			process->chained->n_huge = mm.huge.huge_len;
			process->chained->guards = mm.guards.guards_val;
			process->chained->n_guards = mm.guards.guards_len;
			mm.huge.huge_val = mm.guards.guards_val = NULL;
			mm.huge.huge_len = mm.guards.guards_len = 0;
		}
		xdr_free((xdrproc_t)xdr_image_mm, &mm);
	}
	return 0;
}

int chain_join(struct dump *dump, struct fsnap_error *err)
{
	const struct process *root = dump->tree.processes[0];
	if (!dump->chain)
		dump->chain = dump->lent = keeper_ask(root->pid, start_of(root), &dump->keeper, err);
	if (!dump->chain)
		return error_is_set(err) ? -1 : 0;
	drop_dead(dump->chain);
	open_base(dump);
	if (for_each_process(dump, admit, err) < 0 || for_each_process(dump, link_member, err) < 0)
		return -1;
	return read_spans(dump, err);
}

void chain_inherit(struct dump *dump)
{
	struct fsnap_error why = { 0 };
	if (dump->chain)
		image_writer_tidy(dump->writer, dump->chain->tidy);
	if (!dump->parent || image_writer_inherit(dump->writer, dump->parent, &why) == 0)
		return;
	dump_note(dump, "stored in full: %s", why.message);
	do_without(dump);
}

void chain_begin(struct dump *dump)
{
	struct chain *chain = dump->chain;
	if (!chain || dump->begun)
		return;
	dump->begun = true;
	chain->base[0] = '\0';
	if (dump->keeper >= 0 && keeper_give_up_base(dump->keeper) < 0) {
		close(dump->keeper);
		dump->keeper = -1;
	}
}

void chain_take_mapped(struct dump *dump)
{
	struct chain *chain = dump->chain;
	if (!chain || !chain->mapped)
		return;
	mapped_take_over(dump, chain->mapped, chain->n_mapped);
	chain->mapped = NULL;
	chain->n_mapped = 0;
}

/* For the next image; what came to nothing leaves nothing. */
static void leave_mapped(struct dump *dump)
{
	struct chain *chain = dump->chain;
	if (!chain->stays_open)
		return;
	mapped_free_all(chain->mapped, chain->n_mapped);
	chain->mapped = dump->mapped;
	chain->n_mapped = dump->n_mapped;
	dump->mapped = NULL;
	dump->n_mapped = 0;
}

void chain_hurry(struct dump *dump, bool urgent)
{
	if (dump->chain)
		gentle_go(&dump->chain->gentle, !urgent);
}

/* --- afterwards ---------------------------------------------------------------------------------------- */

/* What is left of the spans when what was lost is cut out: what is there now may be registered next time. */
static int forget_lost(const struct chained *chained)
{
	struct track *track = &chained->member->track;
	image_span *left = NULL;
	size_t n = 0;
	if (!chained->n_lost)
		return 0;
	for (size_t i = 0; i < track->n_spans; i++) {
		uint64_t at = track->spans[i].start, end = track->spans[i].end;
		for (size_t j = 0; j <= chained->n_lost; j++) { /* by address, as they were met */
			const image_span *lost = j < chained->n_lost ? &chained->lost[j] : NULL;
			uint64_t to = lost && lost->start < end ? lost->start : end;
			image_span *more = at < to ? grow(left, n, sizeof(*left), NULL) : left;
			if (at < to && !more) {
				free(left);
				return -1;
			}
			left = more;
			if (at < to)
				left[n++] = (image_span){ at, to };
			at = lost && lost->end > at ? lost->end : at;
			if (!lost || lost->start >= end)
				break;
		}
	}
	free(track->spans);
	track->spans = left;
	track->n_spans = n;
	return 0;
}

/* Pages that were marked as written until now are in the image; but what comes into them from here on may come unseen. */
static bool is_evaded(const struct dump *dump, const struct process *process)
{
	const image_process *image = &process->image;
	bool evaded = track_evaded_in(&process->mm);
	for (u_int i = 0; i < image->fds.fds_len && !evaded; i++) {
		const image_file *file = &dump->files[image->fds.fds_val[i].file - 1]->file;
		evaded = track_evaded_by(file->label, file->flags) != NULL;
	}
	return evaded;
}

/* Who was not in the tree, whatever the reason, is not in the base. */
static void rebase_members(struct dump *dump)
{
	struct chain *chain = dump->chain;
	for (size_t i = 0; i < chain->n_members; i++)
		chain->members[i].based = false;
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		if (!process->chained)
			continue;
		process->chained->member->based = forget_lost(process->chained) == 0 && !is_evaded(dump, process);
		process->chained->member->space = process->mm.id;
	}
}

static void keep_open(struct dump *dump)
{
	struct chain *chain = dump->chain;
	struct image *next = chain->stays_open ?
		image_open_beside(dump->store, chain->base, chain->open, NULL) : NULL;
	if (dump->parent == chain->open)
		dump->parent = NULL;
	image_close(chain->open);
	chain->open = next;
}

void chain_commit(struct dump *dump, const uint8_t *uuid)
{
	struct chain *chain = dump->chain;
	if (!chain)
		return;
	chain_begin(dump); /* a tree without memory has taken nothing */
	rebase_members(dump);
	chain->untracked = repeats_pages(dump);
	if (dump->parent)
		snprintf(dump->report->parent, sizeof(dump->report->parent), "%s", image_name(dump->parent));
	snprintf(chain->base, sizeof(chain->base), "%s", dump->report->image);
	memcpy(chain->uuid, uuid, sizeof(chain->uuid));
	keep_open(dump);
	leave_mapped(dump);
	readers_note_files(dump);
	if (dump->keeper >= 0)
		keeper_return(dump->keeper, chain); /* failing, it has no base */
}

static void forget_process(struct process *process)
{
	struct chained *chained = process->chained;
	if (!chained)
		return;
	free(chained->huge);
	free(chained->guards);
	free(chained->kept);
	free(chained->lost);
	free(chained);
	process->chained = NULL;
}

void chain_leave(struct dump *dump)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		forget_process(dump->tree.processes[i]);
	for (size_t i = 0; i < dump->known.n_processes; i++)
		forget_process(dump->known.processes[i]);
	if (dump->chain && dump->parent != dump->chain->open)
		image_close(dump->parent);
	dump->parent = NULL;
	free(dump->repeats.spans);
	if (dump->lent)
		dump->chain = NULL;
	chain_free(dump->lent);
	if (dump->keeper >= 0)
		close(dump->keeper);
	dump->keeper = -1;
}
