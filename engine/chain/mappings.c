/*
 * mappings.c - what was read of a process' mappings, kept from image to image of a watch as long as none of them changes:
 * the kernel counts what changes one (bpf/vmas.h). Our own agent's come and go in between, while nobody else of the tree
 * runs: what was true before them is true behind them (mappings_settle()).
 *
 * Names of mapped files change without that. What is said of a file is its descriptor's name, if the one in maps leads
 * elsewhere by now (mapped.c, dump_identity()).
 */
#include <stdlib.h>
#include <string.h>

#include "bpf/vmas.h"
#include "engine/chain/chain.h"
#include "engine/leftover.h"
#include "engine/procfs.h"
#include "engine/smaps.h"
#include "engine/text.h"

#define HOLDS_FOR 100 /* images: of numbers that are estimates only, and change with no mapping */

static struct known_mappings *known_of(struct dump *dump, const struct process *process)
{
	struct chain_member *member = readers_vmas(dump) ? chain_member_of(dump->chain, process) : NULL;
	return member ? &member->mappings : NULL;
}

static void forget_text(struct known_mappings *known)
{
	free(known->text);
	known->text = NULL;
	known->gadgets = (struct text_gadgets){ 0 };
	known->registered = false;
}

static void doubt(struct known_mappings *known)
{
	forget_text(known);
	known->surveyed = false;
}

void mappings_forget(struct known_mappings *known)
{
	forget_text(known);
	free(known->advice);
	*known = (struct known_mappings){ 0 };
}

/* See chain_aside.c. `now`: since the tree stands still, and before an agent is in it. */
static void judge_pages(const struct process *process, const struct known_mappings *known, const struct vmas_counts *now)
{
	if (process->chained)
		process->chained->untouched = now->taken_away && now->taken_away == known->taken_away &&
					      now->space == known->space;
}

/* Has nothing changed since what is known was read? If something has, the counts are for what is read from here on. */
static bool look(struct dump *dump, const struct process *process, struct known_mappings *known)
{
	struct vmas_counts now = vmas_counts(readers_vmas(dump), process->live);
	bool same = now.locked && now.locked == known->locked && now.space == known->space;
	if (dump->still)
		judge_pages(process, known, &now);
	if (now.space != known->space)
		known->taken_away = 0;
	known->locked = now.locked;
	known->space = now.space;
	if (!same)
		doubt(known);
	return same;
}

/* --- what smaps said --------------------------------------------------------------------------------------- */

static bool use(struct known_mappings *known, struct process *process)
{
	struct advice *copy = ++known->times > HOLDS_FOR ? NULL : malloc(known->n * sizeof(*copy));
	if (!copy || !known->advice) {
		free(copy);
		return false;
	}
	memcpy(copy, known->advice, known->n * sizeof(*copy));
	free(process->advice);
	process->advice = copy;
	process->n_advice = known->n;
	process->dirty = known->dirty;
	process->shares = known->shares;
	return true;
}

static void note(struct known_mappings *known, const struct process *process, uint64_t sum)
{
	/* None: it is on its way out. */
	struct advice *copy = process->n_advice ? malloc(process->n_advice * sizeof(*copy)) : NULL;
	free(known->advice);
	known->advice = copy;
	known->n = process->n_advice;
	known->sum = sum;
	known->times = 0;
	known->surveyed = copy != NULL;
	if (!copy)
		return;
	memcpy(copy, process->advice, process->n_advice * sizeof(*copy));
	known->dirty = process->dirty;
	known->shares = process->shares;
}

/* It runs: what was said is remembered under a sum only if that was the same before and behind. */
static bool is_settled(struct dump *dump, const struct process *process, struct known_mappings *known, uint64_t sum)
{
	return known->locked ? look(dump, process, known) : vmas_sum(readers_vmas(dump), process->live) == sum;
}

void mappings_renew(struct dump *dump, struct process *process)
{
	struct known_mappings *known = known_of(dump, process);
	struct flags_reader *reader = readers_flags_there(dump);
	if (reader && !(known && known->surveyed))
		vm_flags_renew(reader, process);
}

/* Where the kernel does not count, mappings that were all told are as good (bpf/vmas.h). */
int mappings_survey(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct known_mappings *known = known_of(dump, process);
	bool same = known && look(dump, process, known) && known->surveyed;
	uint64_t sum = known && !same ? vmas_sum(readers_vmas(dump), process->live) : known ? known->sum : 0;
	if (known && (same || (sum && sum == known->sum)) && use(known, process)) {
		known->surveyed = true;
		return 0;
	}
	if (maps_survey(dump, process, err) < 0)
		return -1;
	if (!known)
		return 0;
	readers_flags(dump); /* for the freeze */
	note(known, process, sum);
	if (!is_settled(dump, process, known, sum))
		known->sum = 0;
	return 0;
}

/* --- what maps said ---------------------------------------------------------------------------------------- */

static char *known_text(struct dump *dump, const struct process *process, struct known_mappings *known)
{
	bool same = known && look(dump, process, known) && known->text;
	return same ? strdup(known->text) : NULL;
}

char *mappings_text(struct dump *dump, const struct process *process, struct fsnap_error *err)
{
	struct known_mappings *known = known_of(dump, process);
	char *text = known_text(dump, process, known);
	if (text)
		return text;
	text = procfs_read(process->proc, "maps", NULL, err);
	if (!known || !text)
		return text;
	forget_text(known);
	if (known->locked)
		known->text = strdup(text);
	return text;
}

/* --- what can be run there --------------------------------------------------------------------------------- */

int mappings_find_text(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct known_mappings *known = dump->still ? NULL : known_of(dump, process);
	if (known && known->text && known->gadgets.syscall_any) { /* read again when it stands still: look_doubtfully() */
		process->text = known->gadgets;
		return 0;
	}
	if (text_find(process->live, process->mm.vmas.vmas_val, process->mm.vmas.vmas_len, &process->text, &dump->texts,
		      err) < 0)
		return -1;
	if (known && known->text)
		known->gadgets = process->text;
	return 0;
}

/* --- from one image to the next ------------------------------------------------------------------------------ */

bool mappings_are_registered(struct dump *dump, const struct process *process)
{
	const struct known_mappings *known = known_of(dump, process);
	return known && known->text && known->registered;
}

void mappings_note_registered(struct dump *dump, const struct process *process)
{
	struct known_mappings *known = known_of(dump, process);
	if (known)
		known->registered = known->text != NULL;
}

void mappings_settle(struct dump *dump)
{
	for (size_t i = 0; readers_vmas(dump) && i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		struct known_mappings *known = process->image.zombie ? NULL : known_of(dump, process);
		if (!known)
			continue;
		struct vmas_counts now = vmas_counts(readers_vmas(dump), process->live);
		if (!now.locked || now.space != known->space || process->n_leftovers)
			doubt(known);
		known->locked = now.locked;
		known->taken_away = now.space == known->space ? now.taken_away : 0;
	}
}
