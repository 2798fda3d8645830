/*
 * vm_flags.c - what smaps.c finds out, of large processes, without /proc/PID/smaps: that walks page tables, 13 ms per GiB,
 * for numbers that are not wanted. An iterator (bpf/flags.h) tells the flags as the kernel has them; whether somebody else
 * may have pages of the process', by its kinship. How much it holds is known before.
 *
 * That answers for mappings whose flags mean the same in all kernels that fsnap knows. Where there is anything else, or
 * somebody may share, smaps is asked.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/smaps.h"
#include "store/scope.h"

#define HUGE_PAGE (2ull << 20)

/* include/linux/mm.h: up to here bits are what they have been since Linux 4.14; behind them keys of four bits, on x86 since
 * there are any; what lies beyond has moved. */
#define BITS_KNOWN 32
#define KEY_SHIFT 32
#define KEY_MASK 15
#define BIT_HUGETLB 22 /* the size of its pages stands only in smaps */

static bool is_plain(const struct flags_mapping *mapping)
{
	return !(mapping->flags >> BITS_KNOWN & ~(uint64_t)KEY_MASK) && !(mapping->flags & 1ull << BIT_HUGETLB) &&
	       !(mapping->traits & FLAGS_SHARED);
}

/* Memory of tmpfs counts as the process' own; whether it has huge pages mapped, which takes room for one, smaps says. */
static bool are_plain(const struct flags_mapping *mappings, size_t n, uint64_t *bytes)
{
	uint64_t tmpfs = 0;
	for (size_t i = 0; i < n; i++) {
		if (!is_plain(&mappings[i]))
			return false;
		tmpfs += mappings[i].traits & FLAGS_TMPFS ? mappings[i].end - mappings[i].start : 0;
	}
	*bytes += tmpfs;
	return n && tmpfs < HUGE_PAGE;
}

static unsigned key_of(const struct flags_mapping *mapping)
{
	return (unsigned)(mapping->flags >> KEY_SHIFT) & KEY_MASK;
}

static int take_over(struct process *process, const struct flags_mapping *mappings, size_t n, uint64_t bytes,
		     struct fsnap_error *err)
{
	struct advice *advice = calloc(n, sizeof(*advice));
	if (!advice)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "mappings");
	for (size_t i = 0; i < n; i++) {
		advice[i].start = mappings[i].start;
		advice[i].end = mappings[i].end;
		advice[i].pkey = key_of(&mappings[i]);
		smaps_note_bits(mappings[i].flags, &advice[i]);
	}
	free(process->advice);
	process->advice = advice;
	process->n_advice = n;
	process->dirty = bytes;
	process->shares = false;
	return 0;
}

int vm_flags_survey(struct flags_reader *reader, struct process *process, uint64_t bytes, struct fsnap_error *err)
{
	size_t n;
	cleanup_free struct flags_mapping *mappings = flags_ask(reader, process->live, &n, NULL);
	if (!mappings || !are_plain(mappings, n, &bytes))
		return 1;
	return take_over(process, mappings, n, bytes, err);
}

void vm_flags_renew(struct flags_reader *reader, struct process *process)
{
	size_t n, at = 0;
	cleanup_free struct flags_mapping *now = flags_ask(reader, process->live, &n, NULL);
	unsigned known = smaps_known_advice();
	for (size_t i = 0; now && i < process->n_advice; i++) {
		struct advice *advice = &process->advice[i], fresh = { 0 };
		while (at < n && now[at].start < advice->start)
			at++;
		if (at == n || now[at].start != advice->start || now[at].end != advice->end)
			continue;
		smaps_note_bits(now[at].flags, &fresh);
		advice->flags = (advice->flags & ~known) | fresh.flags;
		advice->pkey = key_of(&now[at]);
	}
}
