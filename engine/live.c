/*
 * live.c - rounds of copying, while the tree runs: everything first, then what was written meanwhile, and again,
 * as long as that becomes less. Then the tree is frozen, and the rest is copied (live_pages.c).
 */
#include "engine/live.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/chain/chain.h"
#include "engine/laps.h"
#include "engine/notes.h"
#include "engine/snapshot.h"
#include "engine/secrets.h"

#define LARGE_TREE (64ull << 20) /* bytes: from here on, live is the default */
#define WORTH_TRACKING (1ull << 20) /* bytes of a process: less is copied sooner than tracked */
#define ROUNDS_MAX 24
#define FEW_PAGES 256	   /* copied as soon as asked for */
#define SHRINKS_TO 3 / 4   /* of the round before, or it does not pay */
#define STATE_US 1500	   /* the rest of a freeze: stopping, collecting */
#define SLACK_PAGES 1024   /* backed beforehand, for what is written until the freeze; and half as much again as last */

/* --- who is tracked ------------------------------------------------------------------------- */

static uint64_t bytes_of(const struct dump *dump)
{
	uint64_t bytes = dump->tree.processes[0]->dirty;
	for (size_t i = 0; i < dump->known.n_processes; i++)
		bytes += dump->known.processes[i]->dirty;
	return bytes;
}

static uint64_t changed_of(const struct process *process)
{
	return process->chained && process->chained->based ? process->chained->n_changed : 0;
}

/* Where tracking is there already, rounds cost some 2 ms while the tree runs, and save copying 1 us a page while it stands
 * still. A watch's would be taken from the processors of what it saves. */
static bool has_changed_much(const struct dump *dump)
{
	uint64_t pages = changed_of(dump->tree.processes[0]);
	for (size_t i = 0; i < dump->known.n_processes; i++)
		pages += changed_of(dump->known.processes[i]);
	return !dump->chain->stays_open && pages > FEW_PAGES;
}

static bool is_wanted(const struct dump *dump)
{
	switch (dump->options->live) {
	case FSNAP_LIVE_ALWAYS:
		return true;
	case FSNAP_LIVE_NEVER:
		return false;
	}
	if (dump->options->max_freeze_us)
		return true;
	/* In a chain, what has changed since the image before. */
	return dump->chain ? has_changed_much(dump) || dump->estimate * STORE_PAGE > LARGE_TREE :
			     bytes_of(dump) > LARGE_TREE;
}

/* Of a chain the tracking is the chain's, before and after. */
static struct track *track_of(struct live_space *space)
{
	return space->member ? &space->member->track : &space->track;
}

static int note_huge(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	struct live_space *space = arg;
	return pages_add_span(&space->n_huge, &space->huge, start, end, err);
}

static int find_huge(struct live_space *space, struct fsnap_error *err)
{
	const struct track *track = track_of(space);
	for (size_t i = 0; i < track->n_spans; i++)
		if (track_huge(track->pagemap, track->spans[i].start, track->spans[i].end, note_huge, space, err) < 0)
			return -1;
	return 0;
}

static struct live_space *new_space(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct live *live = dump->live;
	struct live_space *spaces = grow(live->spaces, live->n_spaces, sizeof(*spaces), err);
	if (!spaces)
		return NULL;
	live->spaces = spaces;
	struct live_space *space = &spaces[live->n_spaces];
	*space = (struct live_space){ .pid = process->pid, .process = process, .track = TRACK_NONE };
	return space;
}

/* From here on it counts. */
static int number_space(struct live *live, const struct live_space *space, struct fsnap_error *err)
{
	if (numbers_put(&live->by_pid, space->pid, live->n_spaces++) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "tracking");
	return 0;
}

/* Where the chain has no base, what its marks say is of no use: all counts as written. */
static int add_member(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct live_space *space = process->chained ? new_space(dump, process, err) : NULL;
	if (!space)
		return process->chained ? -1 : 0;
	space->member = process->chained->member;
	if (number_space(dump->live, space, err) < 0 || (!process->chained->based && track_wash(track_of(space), err) < 0))
		return -1;
	return find_huge(space, err);
}

static int add_space(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct fsnap_error why = { 0 };
	if (process->image.zombie || !process->prepared ||
	    (process->dirty < WORTH_TRACKING && dump->options->live != FSNAP_LIVE_ALWAYS))
		return 0;
	struct live_space *space = new_space(dump, process, err);
	if (!space)
		return -1;
	if (track_open(&space->track, process, &why) < 0) {
		/* If it has ended, that is for others to tell. */
		if (why.code != FSNAP_E_TARGET_DIED)
			dump_note(dump, "%s: its memory was copied while it stood still", why.message);
		return 0;
	}
	if (space->track.stopped_us > dump->report->arm_frozen_us)
		dump->report->arm_frozen_us = space->track.stopped_us;
	if (number_space(dump->live, space, err) < 0)
		return -1;
	return track_register(&space->track, process, err) < 0 ? -1 : find_huge(space, err);
}

static int track_tree(struct dump *dump, struct fsnap_error *err)
{
	int (*add)(struct dump *, struct process *, struct fsnap_error *) = dump->chain ? add_member : add_space;
	if (add(dump, dump->tree.processes[0], err) < 0)
		return -1;
	for (size_t i = 0; i < dump->known.n_processes; i++)
		if (add(dump, dump->known.processes[i], err) < 0)
			return -1;
	return 0;
}

/* --- a round ---------------------------------------------------------------------------------- */

struct round {
	struct dump *dump;
	struct live_space *space;
	uint64_t pages;
};

/* A page keeps the place it was given first. */
static int take(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	struct round *round = arg;
	struct process *process = round->space->process;
	uint64_t page = start / STORE_PAGE, n = (end - start) / STORE_PAGE;
	round->pages += n;
	for (uint64_t now; n; page += now, n -= now) {
		now = n;
		uint64_t at = held_find(&round->space->held, page, &now);
		bool young = at != HELD_NOWHERE || (round->space->member && process->chained->based);
		if (at == HELD_NOWHERE) {
			at = pages_take(round->dump, now);
			if (held_add(&round->space->held, page, now, at, err) < 0)
				return -1;
		}
		if (young)
			youth_note(&round->dump->youth, at, now);
		/* What others may map, too, is not to be pinned: see copy.c. */
		bool shared = process->shares || round->dump->known.n_processes;
		if (pages_add_job(round->dump, &(struct copy_job){ process, page, at, now, shared }, err) < 0)
			return -1;
	}
	return 0;
}

static int lose(struct dump *dump, struct process *process, uint64_t page, uint64_t npages,
		struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->live->n_spaces; i++)
		if (dump->live->spaces[i].process == process)
			return held_spoil(&dump->live->spaces[i].held, page, npages, err);
	return 0;
}

/* Mapping by mapping, as they were when one looked last. */
static int take_mapping(struct round *round, const image_vma *vma, struct fsnap_error *err)
{
	struct live_space *space = round->space;
	const struct track *track = track_of(space);
	for (size_t i = 0; i < track->n_spans; i++) {
		uint64_t start = vma->start > track->spans[i].start ? vma->start : track->spans[i].start;
		uint64_t end = vma->end < track->spans[i].end ? vma->end : track->spans[i].end;
		if (start >= end || !track_watches(track, start))
			continue;
		int result = track_take(track, start, end, take, round, err);
		if (result == TRACK_LOST)
			result = pages_add_span(&space->n_doubts, &space->doubts, start, end, err);
		if (result < 0)
			return -1;
	}
	return 0;
}

static int take_space(struct round *round, struct fsnap_error *err)
{
	const image_mm *mm = &round->space->process->mm;
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (mm->vmas.vmas_val[i].kind == VMA_ANON && !secrets_are_in(round->dump, &mm->vmas.vmas_val[i]) &&
		    take_mapping(round, &mm->vmas.vmas_val[i], err) < 0)
			return -1;
	return 0;
}

/* What it has mapped since is tracked, too; and what was said about its mappings need not be asked for once it stands
 * still. It runs, so it may change while we look: what cannot be had now can be had then. */
static int look_again(struct dump *dump, struct live_space *space, struct fsnap_error *err)
{
	if (maps_collect(dump, space->process, &(struct fsnap_error){ 0 }) < 0)
		return 0;
	return track_register(track_of(space), space->process, err);
}

/* What is asked for in a round tells of writes so far. To pages that a ring or a device has in its hands then more may come
 * unseen: looked for before, and when all has been copied, for who has opened one meanwhile. */
static void look_for_evasion(struct dump *dump)
{
	for (size_t i = 0; i < dump->live->n_spaces; i++) {
		struct live_space *space = &dump->live->spaces[i];
		struct fsnap_error why = { 0 };
		if (space->evaded || track_refuse(space->process, &why) == 0)
			continue;
		space->evaded = true;
		if (space->process->chained)
			space->process->chained->based = false;
		if (track_is_alive(track_of(space)))
			dump_note(dump, "%s: its memory was copied while it stood still", why.message);
	}
}

static int do_round(struct dump *dump, bool first, uint64_t *pages, struct fsnap_error *err)
{
	struct live *live = dump->live;
	struct round round = { .dump = dump };
	look_for_evasion(dump);
	for (size_t i = 0; i < live->n_spaces; i++) {
		round.space = &live->spaces[i];
		if ((!first && look_again(dump, round.space, err) < 0) || take_space(&round, err) < 0)
			return -1;
	}
	*pages = round.pages;
	if (image_writer_reserve(dump->writer, dump->taken + SLACK_PAGES + round.pages / 2, err) < 0)
		return -1;
	for (size_t i = 0; i < live->n_spaces; i++)
		held_sort(&live->spaces[i].held);
	int result = copy_pages(dump, lose, err);
	dump->n_jobs = 0;
	dump->report->rounds++;
	dump->report->live_pages += round.pages;
	return result;
}

/* --- how many ----------------------------------------------------------------------------------- */

struct pace {
	uint64_t pages, before; /* of the last round, and of the one before it */
	double us, page_us;	/* how long the last took; the price of a page */
};

/* How long the tree would stand still if it were frozen now: as much as was written during the last round has
 * been written since. */
static double freeze_us(const struct pace *pace)
{
	return STATE_US + (double)pace->pages * pace->page_us;
}

static bool is_enough(const struct dump *dump, const struct pace *pace)
{
	uint64_t budget = dump->options->max_freeze_us;
	if (dump->report->rounds < 2)
		return false;
	if (budget && freeze_us(pace) <= (double)budget)
		return true;
	return pace->pages <= FEW_PAGES || dump->report->rounds >= ROUNDS_MAX ||
	       pace->pages > pace->before * SHRINKS_TO;
}

static int do_rounds(struct dump *dump, struct fsnap_error *err)
{
	struct pace pace = { 0 };
	uint64_t mark = clock_ns(CLOCK_MONOTONIC);
	do {
		pace.before = pace.pages;
		if (do_round(dump, dump->report->rounds == 0, &pace.pages, err) < 0)
			return -1;
		pace.us = (double)lap(&mark);
		if (pace.pages)
			dump->live->page_us = pace.page_us = pace.us / (double)pace.pages;
	} while (!is_enough(dump, &pace));
	look_for_evasion(dump);
	return 0;
}

int live_copy(struct dump *dump, struct fsnap_error *err)
{
	uint64_t mark = clock_ns(CLOCK_MONOTONIC);
	if (!is_wanted(dump))
		return 0;
	chain_begin(dump);
	if (!(dump->live = calloc(1, sizeof(*dump->live))))
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "tracking");
	if (track_tree(dump, err) < 0)
		return -1;
	readers_flags(dump); /* for the freeze: mappings_renew() */
	dump->report->arm_us = lap(&mark);
	int result = dump->live->n_spaces ? do_rounds(dump, err) : 0;
	dump->report->live_us = lap(&mark);
	return result;
}

/* --- afterwards ------------------------------------------------------------------------------- */

void live_account(struct dump *dump)
{
	struct fsnap_dump_report *report = dump->report;
	uint64_t budget = dump->options->max_freeze_us, state = report->seize_us + report->collect_us;
	if (!budget || report->frozen_us <= budget)
		return;
	if ((!dump->live || dump->live->n_spaces == 0) && !snapshot_pages(dump) && report->copy_us > state)
		snprintf(report->missed, sizeof(report->missed), "all of its memory had to be copied while it stood still");
	else if (snapshot_pages(dump))
		snprintf(report->missed, sizeof(report->missed),
			 "copying its page tables, to share %" PRIu64 " pages copy-on-write, took %" PRIu64 " us; copying "
			 "the pages would have taken longer", snapshot_pages(dump), report->snapshot_us);
	else if (report->copy_us > state)
		snprintf(report->missed, sizeof(report->missed),
			 "%" PRIu64 " pages had been written since the last of %u rounds: it writes faster than they can be "
			 "copied", report->frozen_pages, report->rounds);
	else
		snprintf(report->missed, sizeof(report->missed),
			 "stopping it and reading its state took %" PRIu64 " us, however little memory changes", state);
}

void live_free(struct dump *dump)
{
	struct live *live = dump->live;
	if (!live)
		return;
	for (size_t i = 0; i < live->n_spaces; i++) {
		track_close(&live->spaces[i].track);
		held_free(&live->spaces[i].held);
		free(live->spaces[i].huge);
		free(live->spaces[i].doubts);
	}
	numbers_free(&live->by_pid);
	free(live->spaces);
	free(live);
	dump->live = NULL;
}
