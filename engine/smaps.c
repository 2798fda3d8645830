/*
 * smaps.c - what madvise(2), mlock(2) and their like have said about each mapping:
 * /proc/PID/smaps, which is where the kernel tells it.  That walks all page tables,
 * so it is read before the freeze, and again only if a mapping has changed since. Of
 * large processes it is read only where nothing else tells: vm_flags.c. That is also asked during the freeze,
 * where it is at hand (mappings_renew()); else what is said in the milliseconds between the two is not noticed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/procfs.h"
#include "engine/smaps.h"
#include "store/scope.h"

#define WORTH_IT (384ull << 20) /* bytes: smaps takes as long for them as loading the iterator of vm_flags.c */
#define NO_BIT 63 /* it has moved from kernel to kernel */

static const struct {
	char code[3]; /* in VmFlags of /proc/PID/smaps (proc(5)) */
	unsigned char bit; /* of vm_flags (include/linux/mm.h) */
	unsigned advice, marks;
} flags[] = {
	{ "dc", 17, ADVICE_DONTFORK, 0 },     { "wf", 25, ADVICE_WIPEONFORK, 0 },
	{ "dd", 26, ADVICE_DONTDUMP, 0 },     { "hg", 29, ADVICE_HUGEPAGE, 0 },
	{ "nh", 30, ADVICE_NOHUGEPAGE, 0 },   { "mg", 31, ADVICE_MERGEABLE, 0 },
	{ "lo", 13, ADVICE_LOCKED, 0 },	      { "lf", 19, ADVICE_ONFAULT, 0 },
	{ "sr", 15, ADVICE_SEQUENTIAL, 0 },   { "rr", 16, ADVICE_RANDOM, 0 },
	{ "sl", NO_BIT, ADVICE_SEALED, 0 },   { "um", 9, 0, MARK_WATCHED_MISSING },
	{ "uw", 12, 0, MARK_WATCHED_WRITES }, { "ui", NO_BIT, 0, MARK_WATCHED_MINOR },
	{ "nr", 21, 0, MARK_NORESERVE },      { "gd", 8, 0, MARK_GROWSDOWN },
	{ "ht", 22, 0, MARK_HUGETLB },	      { "dp", NO_BIT, 0, MARK_DROPPABLE },
	{ "sf", 23, 0, MARK_SYNC },	      { "ss", NO_BIT, 0, MARK_SHADOW_STACK },
	{ "mw", 5, 0, MARK_MAY_WRITE },	      { "io", 14, 0, MARK_DEVICE },
	{ "pf", 10, 0, MARK_DEVICE },
};

void smaps_note_bits(uint64_t bits, struct advice *advice)
{
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (flags[i].bit != NO_BIT && bits >> flags[i].bit & 1) {
			advice->flags |= flags[i].advice;
			advice->marks |= flags[i].marks;
		}
}

unsigned smaps_known_advice(void)
{
	unsigned all = 0;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		all |= flags[i].bit != NO_BIT ? flags[i].advice : 0;
	return all;
}

static void parse_flags(const char *codes, struct advice *advice)
{
	for (; codes[0] >= 'a' && codes[0] <= 'z'; codes += 3)
		for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
			if (codes[0] == flags[i].code[0] && codes[1] == flags[i].code[1]) {
				advice->flags |= flags[i].advice;
				advice->marks |= flags[i].marks;
			}
}

/* The number of a line "Key:   123 kB" of one mapping's text. */
static uint64_t number_of(const char *text, const char *end, const char *key)
{
	const char *at = memmem(text, (size_t)(end - text), key, strlen(key));
	return at ? strtoul(at + strlen(key), NULL, 10) : 0;
}

/* Reads one mapping's text, which ends with its VmFlags; returns what comes behind it. */
static char *parse_one(char *text, char *codes, struct process *process, struct advice *advice)
{
	char *cursor = text;
	advice->start = strtoul(cursor, &cursor, 16);
	advice->end = strtoul(cursor + 1, &cursor, 16);
	parse_flags(codes + strlen("\nVmFlags: "), advice);
	/* Pss_Dirty (Linux 6.0), else Private_Dirty: for an estimate. */
	uint64_t dirty = number_of(cursor, codes, "\nPss_Dirty:");
	process->dirty += 1024 * (dirty ? dirty : number_of(cursor, codes, "\nPrivate_Dirty:"));
	/* " rw-p": pages of a mapping that is shared by intent are not stored by their frames. */
	if (codes - cursor > 4 && cursor[4] == 'p')
		process->shares |= number_of(cursor, codes, "\nShared_Dirty:") > 0;
	advice->pkey = (unsigned)number_of(cursor, codes, "\nProtectionKey:");
	if (advice->marks & MARK_HUGETLB)
		advice->page = 1024 * number_of(cursor, codes, "\nKernelPageSize:");
	if (number_of(cursor, codes, "\nShmemPmdMapped:"))
		advice->flags |= ADVICE_COLLAPSED;
	char *line = strchr(codes + 1, '\n');
	return line ? line + 1 : codes + strlen(codes);
}

int smaps_survey(struct process *process, struct fsnap_error *err)
{
	cleanup_free char *text = procfs_read(process->proc, "smaps", NULL, err);
	if (!text)
		return -1;
	free(process->advice);
	process->advice = NULL;
	process->n_advice = 0;
	process->dirty = 0;
	process->shares = false;
	char *line = text;
	for (char *codes; (codes = strstr(line, "\nVmFlags: "));) {
		struct advice *array = grow(process->advice, process->n_advice, sizeof(*array), err);
		if (!array)
			return -1;
		process->advice = array;
		array[process->n_advice] = (struct advice){ 0 };
		line = parse_one(line, codes, process, &array[process->n_advice++]);
	}
	return 0;
}

/* Anonymous bytes that are there: proc_pid_statm(5). */
static uint64_t anonymous(const struct process *process)
{
	unsigned long long resident, shared;
	cleanup_free char *text = procfs_read_once(process->proc, "statm", NULL, NULL);
	if (!text || sscanf(text, "%*u %llu %llu", &resident, &shared) != 2 || shared > resident)
		return 0;
	return (resident - shared) * STORE_PAGE;
}

int maps_survey(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	uint64_t bytes = anonymous(process);
	const char *always = getenv("FSNAP_ASK_FLAGS"); /* for tests: 1 or 0, whatever the size */
	bool worth = always ? always[0] == '1' : bytes >= WORTH_IT;
	struct flags_reader *reader = worth ? readers_flags(dump) : NULL;
	if (worth && always && !reader)
		return fail(err, FSNAP_E_UNSUPPORTED, 0, "FSNAP_ASK_FLAGS: this kernel does not tell flags of mappings");
	int result = reader ? vm_flags_survey(reader, process, bytes, err) : 1;
	return result == 1 ? smaps_survey(process, err) : result;
}

const struct advice *maps_known_advice(const struct process *process, uint64_t start)
{
	size_t low = 0, high = process->n_advice;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (process->advice[middle].start < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low < process->n_advice && process->advice[low].start == start ? &process->advice[low] : NULL;
}

static const struct advice *look_up(const struct process *process, uint64_t start, uint64_t end)
{
	const struct advice *found = maps_known_advice(process, start);
	return found && found->end == end ? found : NULL;
}

/* A mapping that has changed since: all are asked for anew, once. While the process still runs they may
 * have changed yet again; that does not matter, for it is collected a second time when it stands still. */
int maps_advice(struct dump *dump, struct process *process, uint64_t start, uint64_t end, bool *asked, struct advice *advice,
		struct fsnap_error *err)
{
	const struct advice *found = look_up(process, start, end);
	if (!found && !*asked) {
		*asked = true;
		if (maps_survey(dump, process, err) < 0)
			return -1;
		found = look_up(process, start, end);
	}
	*advice = found ? *found : (struct advice){ .start = start, .end = end };
	return 0;
}
