/*
 * inherit.c - an image being written that refers to pages of earlier ones.
 *
 * While it is filled, runs say STORE_REFERRED and the parent's `at`. At commit it is known which files they lead
 * to, and only those become its lineage: what nothing refers to any more is an ancestor no more, and can go.
 * Some pages are *carried*: copied into the image itself. All of them where it is to stand alone; those of the
 * files with the fewest where there would be too many files; and a few at a time from files that are little but
 * garbage (image_writer_tidy), as a log-structured file system cleans its segments.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "store/parallel.h"
#include "store/reader.h"
#include "store/scope.h"
#include "store/writer.h"

#define LINEAGE_MOST 64		  /* files that a restore has to open, and a lineage to name */
#define GARBAGE_LEAST (16ull << 8) /* pages: 16 MiB that nobody refers to are not worth copying for */
#define CARRY_GRAIN 64		  /* words of the bitmap: 16 MiB */

int image_writer_inherit(struct image_writer *writer, const struct image *parent, struct fsnap_error *err)
{
	assert(!writer->parent);
	/* What is encrypted must not depend on what anybody could have put there. */
	for (unsigned i = 0; i < parent->n_files && writer->coding.cipher; i++)
		if (!coded_cipher(parent->files[i])) {
			fail(err, FSNAP_E_UNSUPPORTED, 0, "image %s: %s, which it would build on, is not encrypted",
			     writer->name, lineage_name(parent, i));
			return error_hint(err, "the next one can build on this");
		}
	if (ancestor_link(writer->store, parent->own->fd, parent->own->slot.uuid, err) < 0)
		return error_context(err, "image %s", writer->name);
	writer->parent = parent;
	return 0;
}

void image_writer_tidy(struct image_writer *writer, uint64_t pages)
{
	writer->tidy = pages;
}

void image_writer_uuid(const struct image_writer *writer, uint8_t *uuid)
{
	memcpy(uuid, writer->super.uuid, 16);
}

/* --- who refers to what ------------------------------------------------------------------------ */

/* Of the parent's page space, a bit a page. */
struct heritage {
	const struct image *parent;
	uint64_t words;
	uint64_t *live;	  /* referred to */
	uint64_t *carry;  /* of them, copied */
	uint64_t *before; /* of each word of carry: bits in those before it */
	uint64_t *n_live; /* by file */
	bool *drop;	  /* by file: all of its live pages are carried */
	uint64_t carried; /* pages */
	uint64_t first;	  /* the first of them here */
	uint64_t *base;	  /* by file: where its pages are now */
};

static bool bit(const uint64_t *bits, uint64_t at)
{
	return bits[at / 64] >> at % 64 & 1;
}

static int mark_live(struct heritage *heritage, const struct image_writer *writer, struct fsnap_error *err)
{
	uint64_t space = image_page_space(heritage->parent);
	for (size_t i = 0; i < writer->run_count; i++) {
		const struct page_run *run = &writer->runs[i];
		uint64_t at = run->at & ~STORE_REFERRED;
		if (!(run->at & STORE_REFERRED))
			continue;
		if (at > space || run->npages > space - at)
			return fail(err, FSNAP_E_USAGE, 0,
				    "image %s: run of page %#" PRIx64 " in space %" PRIu32
				    " refers to a page that its parent does not have",
				    writer->name, run->page, run->space);
		for (uint64_t end = at + run->npages; at < end;) {
			uint64_t n = 64 - at % 64 < end - at ? 64 - at % 64 : end - at;
			heritage->live[at / 64] |= (n == 64 ? UINT64_MAX : (1ull << n) - 1) << at % 64;
			at += n;
		}
	}
	return 0;
}

/* Bits of [from, to), for each word that has some: fn-less, since it is wanted twice only. */
static uint64_t bits_between(const uint64_t *bits, uint64_t word, uint64_t from, uint64_t to)
{
	uint64_t value = bits[word], low = word * 64;
	if (from > low)
		value &= UINT64_MAX << (from - low);
	if (to < low + 64)
		value &= (1ull << (to - low)) - 1;
	return value;
}

static void count_live(struct heritage *heritage)
{
	const struct image *parent = heritage->parent;
	for (unsigned i = 0; i < parent->n_files; i++) {
		uint64_t from = parent->base[i], to = parent->base[i + 1];
		for (uint64_t word = from / 64; word * 64 < to; word++)
			heritage->n_live[i] += (uint64_t)__builtin_popcountll(
				bits_between(heritage->live, word, from, to));
	}
}

/* --- what is carried ------------------------------------------------------------------------------ */

/* At most `most` live pages of a file; how many. */
static uint64_t carry_from(struct heritage *heritage, unsigned file, uint64_t most)
{
	uint64_t from = heritage->parent->base[file], to = heritage->parent->base[file + 1], n = 0;
	for (uint64_t word = from / 64; word * 64 < to && n < most; word++) {
		uint64_t bits = bits_between(heritage->live, word, from, to);
		heritage->carry[word] |= bits;
		n += (uint64_t)__builtin_popcountll(bits);
	}
	heritage->carried += n;
	heritage->drop[file] = n >= heritage->n_live[file];
	return n;
}

static uint64_t garbage(const struct heritage *heritage, unsigned file)
{
	const struct image *parent = heritage->parent;
	return parent->base[file + 1] - parent->base[file] - heritage->n_live[file];
}

static bool counts(const struct heritage *heritage, unsigned file)
{
	return heritage->n_live[file] && !heritage->drop[file];
}

static unsigned files_left(const struct heritage *heritage)
{
	unsigned n = 0;
	for (unsigned i = 0; i < heritage->parent->n_files; i++)
		n += counts(heritage, i);
	return n;
}

static void carry_fewest(struct heritage *heritage)
{
	unsigned fewest = UINT32_MAX;
	for (unsigned i = 0; i < heritage->parent->n_files; i++)
		if (counts(heritage, i) &&
		    (fewest == UINT32_MAX || heritage->n_live[i] < heritage->n_live[fewest]))
			fewest = i;
	carry_from(heritage, fewest, UINT64_MAX);
}

/* The file that gives back most for what must be copied. */
static unsigned dirtiest(const struct heritage *heritage)
{
	unsigned best = UINT32_MAX;
	for (unsigned i = 0; i < heritage->parent->n_files; i++)
		if (counts(heritage, i) &&
		    (best == UINT32_MAX ||
		     garbage(heritage, i) * heritage->n_live[best] > garbage(heritage, best) * heritage->n_live[i]))
			best = i;
	return best;
}

/* Until a third of all there is, at most, is garbage. */
static void tidy(struct heritage *heritage, uint64_t budget)
{
	uint64_t waste = 0, live = 0;
	for (unsigned i = 0; i < heritage->parent->n_files; i++) {
		waste += counts(heritage, i) ? garbage(heritage, i) : 0;
		live += heritage->n_live[i];
	}
	while (budget && waste > live / 2 + GARBAGE_LEAST) {
		unsigned file = dirtiest(heritage);
		if (file == UINT32_MAX)
			return;
		uint64_t gain = garbage(heritage, file), n = carry_from(heritage, file, budget);
		if (!heritage->drop[file])
			return; /* the rest of it another time */
		waste -= gain < waste ? gain : waste;
		budget -= n < budget ? n : budget;
	}
}

static void choose(struct heritage *heritage, const struct image_writer *writer)
{
	for (unsigned i = 0; i < heritage->parent->n_files && writer->alone; i++)
		carry_from(heritage, i, UINT64_MAX);
	while (files_left(heritage) > LINEAGE_MOST)
		carry_fewest(heritage);
	tidy(heritage, writer->tidy);
	for (uint64_t word = 0, n = 0; word < heritage->words; word++) {
		heritage->before[word] = n;
		n += (uint64_t)__builtin_popcountll(heritage->carry[word]);
		heritage->carried = n;
	}
}

/* --- carrying ---------------------------------------------------------------------------------------- */

static uint64_t place_of(const struct heritage *heritage, uint64_t at)
{
	uint64_t below = heritage->carry[at / 64] & ((1ull << at % 64) - 1);
	return heritage->first + heritage->before[at / 64] + (uint64_t)__builtin_popcountll(below);
}

struct load {
	struct image_writer *writer;
	const struct heritage *heritage;
	atomic_bool failed;
};

static void carry_words(void *arg, uint64_t first, uint64_t n)
{
	struct load *load = arg;
	for (uint64_t word = first; word < first + n && !load->failed; word++)
		for (uint64_t bits = load->heritage->carry[word]; bits; bits &= bits - 1) {
			uint64_t at = word * 64 + (uint64_t)__builtin_ctzll(bits);
			const void *page = image_page(load->heritage->parent, at);
			if (page)
				memcpy(image_writer_page(load->writer, place_of(load->heritage, at)), page, STORE_PAGE);
			else
				load->failed = true;
		}
}

static int carry(struct heritage *heritage, struct image_writer *writer, struct fsnap_error *err)
{
	struct load load = {writer, heritage, false};
	heritage->first = writer->taken;
	if (!heritage->carried)
		return 0;
	if (image_writer_reserve(writer, writer->taken + heritage->carried, err) < 0)
		return -1;
	image_writer_take(writer, heritage->carried);
	parallel_for(heritage->words, CARRY_GRAIN, carry_words, &load);
	if (load.failed)
		return layout_corrupt(err, writer->name, "pages of an image that it builds on cannot be decoded");
	return 0;
}

/* --- the index as it is to be --------------------------------------------------------------------------- */

/* How many pages from `at` on are all carried, or all not. */
static uint64_t alike(const struct heritage *heritage, uint64_t at, uint64_t most)
{
	bool carried = bit(heritage->carry, at);
	uint64_t same = carried ? UINT64_MAX : 0, n = 1;
	while (n < most) {
		if ((at + n) % 64 == 0 && heritage->carry[(at + n) / 64] == same)
			n += 64;
		else if (bit(heritage->carry, at + n) == carried)
			n++;
		else
			break;
	}
	return n < most ? n : most;
}

static int rewrite_run(struct image_writer *to, const struct heritage *heritage, struct page_run run,
		       struct fsnap_error *err)
{
	uint64_t at = run.at & ~STORE_REFERRED;
	for (uint64_t left = run.npages; left;) {
		struct image_place place = image_locate(heritage->parent, at);
		uint64_t n = alike(heritage, at, left < place.npages ? left : place.npages);
		run.npages = (uint32_t)n;
		run.at = bit(heritage->carry, at) ? place_of(heritage, at) :
			 heritage->base[place.file] + (at - heritage->parent->base[place.file]);
		if (image_writer_add_run(to, &run, err) < 0)
			return -1;
		run.page += n;
		at += n;
		left -= n;
	}
	return 0;
}

static int rewrite_runs(struct image_writer *writer, const struct heritage *heritage, struct fsnap_error *err)
{
	struct page_run *old = writer->runs;
	size_t count = writer->run_count;
	int result = 0;
	writer->runs = NULL;
	writer->run_count = writer->run_room = 0;
	writer->apart = true;
	for (size_t i = 0; i < count && result == 0; i++)
		result = old[i].at & STORE_REFERRED ? rewrite_run(writer, heritage, old[i], err)
						    : image_writer_add_run(writer, &old[i], err);
	free(old);
	return result;
}

static void name_ancestor(struct layout_ancestor *to, const struct image *parent, unsigned file)
{
	const struct layout_slot *slot = &parent->files[file]->slot;
	const char *slash = strrchr(parent->name, '/');
	if (file) {
		*to = parent->lineage[file - 1];
		return;
	}
	memset(to, 0, sizeof(*to));
	memcpy(to->uuid, slot->uuid, sizeof(to->uuid));
	to->generation = slot->generation;
	to->checksum = slot->checksum;
	to->pages = slot->pages;
	snprintf(to->name, sizeof(to->name), "%s", slash ? slash + 1 : parent->name);
}

static int name_ancestors(struct image_writer *writer, struct heritage *heritage, struct fsnap_error *err)
{
	const struct image *parent = heritage->parent;
	uint64_t base = writer->taken;
	writer->lineage = calloc(parent->n_files, sizeof(*writer->lineage));
	if (!writer->lineage)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its lineage", writer->name);
	for (unsigned i = 0; i < parent->n_files; i++) {
		if (!counts(heritage, i))
			continue;
		name_ancestor(&writer->lineage[writer->n_ancestors++], parent, i);
		heritage->base[i] = base;
		base += parent->base[i + 1] - parent->base[i];
	}
	writer->space = base;
	return 0;
}

static int settle(struct heritage *heritage, struct image_writer *writer, struct fsnap_error *err)
{
	if (mark_live(heritage, writer, err) < 0)
		return -1;
	count_live(heritage);
	choose(heritage, writer);
	if (carry(heritage, writer, err) < 0 || name_ancestors(writer, heritage, err) < 0)
		return -1;
	return rewrite_runs(writer, heritage, err);
}

int writer_settle_heritage(struct image_writer *writer, struct fsnap_error *err)
{
	const struct image *parent = writer->parent;
	writer->space = writer->taken;
	if (!parent)
		return 0;
	uint64_t words = image_page_space(parent) / 64 + 1, files = parent->n_files;
	cleanup_free uint64_t *room = calloc(3 * words + 3 * files, sizeof(*room));
	if (!room)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its lineage", writer->name);
	struct heritage heritage = {
		.parent = parent, .words = words, .live = room, .carry = room + words,
		.before = room + 2 * words, .n_live = room + 3 * words, .base = room + 3 * words + files,
		.drop = (bool *)(room + 3 * words + 2 * files),
	};
	return settle(&heritage, writer, err);
}
