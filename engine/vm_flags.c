/*
 * vm_flags.c - what smaps.c finds out, of large processes, without /proc/PID/smaps: that walks page tables, 13 ms per GiB,
 * for numbers that are not wanted. An iterator (bpf/flags.h) tells the flags as the kernel has them; whether somebody else
 * may have pages of the process', by its kinship; and how much it holds says /proc/PID/statm.
 *
 * That answers for mappings whose flags mean the same in all kernels that fsnap knows. Where there is anything else, or
 * somebody may share, smaps is asked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/procfs.h"
#include "engine/smaps.h"
#include "store/scope.h"

#define WORTH_IT (384ull << 20) /* bytes: smaps takes as long for them as loading the iterator */
#define HUGE_PAGE (2ull << 20)

/* include/linux/mm.h: up to here bits are what they have been since Linux 4.14; behind them keys of four bits, on x86 since
 * there are any; what lies beyond has moved. */
#define BITS_KNOWN 32
#define KEY_SHIFT 32
#define KEY_MASK 15
#define BIT_HUGETLB 22 /* the size of its pages stands only in smaps */

/* Anonymous bytes that are there: proc_pid_statm(5). */
static uint64_t anonymous(const struct process *process)
{
	unsigned long long resident, shared;
	cleanup_free char *text = procfs_read_once(process->proc, "statm", NULL, NULL);
	if (!text || sscanf(text, "%*u %llu %llu", &resident, &shared) != 2 || shared > resident)
		return 0;
	return (resident - shared) * STORE_PAGE;
}

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

static int take_over(struct process *process, const struct flags_mapping *mappings, size_t n, uint64_t bytes,
		     struct fsnap_error *err)
{
	struct advice *advice = calloc(n, sizeof(*advice));
	if (!advice)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "mappings");
	for (size_t i = 0; i < n; i++) {
		advice[i].start = mappings[i].start;
		advice[i].end = mappings[i].end;
		advice[i].pkey = (unsigned)(mappings[i].flags >> KEY_SHIFT) & KEY_MASK;
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

int maps_survey(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	uint64_t bytes = anonymous(process);
	const char *always = getenv("FSNAP_ASK_FLAGS"); /* for tests: 1 or 0, whatever the size */
	bool worth = always ? always[0] == '1' : bytes >= WORTH_IT;
	struct flags_reader *reader = worth ? readers_flags(dump) : NULL;
	int result = reader ? vm_flags_survey(reader, process, bytes, err) : 1;
	return result == 1 ? smaps_survey(process, err) : result;
}
