#define _GNU_SOURCE
#include "engine/secrets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "engine/live.h"
#include "engine/procfs.h"
#include "store/scope.h"

/* --- MADV_DONTDUMP ------------------------------------------------------------------------ */

/* Private pages of a file would come back as those of the file, which is no memory at all like it: only what is nobody's but
 * the process's own is left out. */
bool secrets_are_in(const struct dump *dump, const image_vma *vma)
{
	return (dump->options->leave_out & FSNAP_LEAVE_OUT_DONTDUMP) && vma->kind == VMA_ANON &&
	       (vma->advice & ADVICE_DONTDUMP);
}

void secrets_wipe(struct dump *dump, const struct process *process, const image_vma *vma)
{
	uint64_t page = vma->start / STORE_PAGE, end = vma->end / STORE_PAGE;
	for (uint64_t n; page < end && dump->live; page += n) {
		n = end - page;
		uint64_t at = live_place(dump, process, page, &n);
		if (at != HELD_NOWHERE)
			memset(image_writer_page(dump->writer, at), 0, n * STORE_PAGE);
		else if (n == 0)
			break;
	}
}

void secrets_note(struct dump *dump)
{
	uint64_t bytes = 0;
	unsigned n = 0;
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const image_mm *mm = &dump->tree.processes[i]->mm;
		for (u_int j = 0; j < mm->vmas.vmas_len; j++)
			if (secrets_are_in(dump, &mm->vmas.vmas_val[j])) {
				bytes += mm->vmas.vmas_val[j].end - mm->vmas.vmas_val[j].start;
				n++;
			}
	}
	if (n)
		dump_note(dump, "%u mapping%s that MADV_DONTDUMP keeps out of core files (%llu KiB) %s left out: zeroes come "
				"back", n, n == 1 ? "" : "s", (unsigned long long)bytes >> 10, n == 1 ? "is" : "are");
}

/* --- core files --------------------------------------------------------------------------------- */

/* The hard limit: nearly everybody has a soft one of 0, which says nothing of the program. */
static int refuse(const struct process *process, const char *why, struct fsnap_error *err)
{
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): %s", process->pid, process->comm, why);
	return error_hint(err, "an image holds what a core file would; dump without --respect-core-limit if that is wanted");
}

static int look_at(const struct process *process, struct fsnap_error *err)
{
	static const char title[] = "Max core file size";
	char soft[32], hard[32];
	cleanup_free char *limits = procfs_read_once(process->proc, "limits", NULL, NULL);
	const char *line = limits ? strstr(limits, title) : NULL;
	if (line && sscanf(line + strlen(title), "%31s %31s", soft, hard) == 2 && strcmp(hard, "0") == 0)
		return refuse(process, "its limit on core files (RLIMIT_CORE, hard) is 0", err);
	return 0;
}

int secrets_look(struct dump *dump, struct fsnap_error *err)
{
	if (!dump->options->respect_core_limit)
		return 0;
	for (size_t i = 0; i < dump->known.n_processes; i++)
		if (look_at(dump->known.processes[i], err) < 0)
			return -1;
	return look_at(dump->tree.processes[0], err);
}

int secrets_check(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; dump->options->respect_core_limit && i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		const image_process *image = &process->image;
		if (image->zombie)
			continue;
		if (image->dumpable != 1)
			return refuse(process, "it is not dumpable (PR_SET_DUMPABLE)", err);
		if (image->limits.limits_len > RLIMIT_CORE && image->limits.limits_val[RLIMIT_CORE].maximum == 0)
			return refuse(process, "its limit on core files (RLIMIT_CORE, hard) is 0", err);
	}
	return 0;
}
