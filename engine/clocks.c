#include "engine/clocks.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/kinds/kinds.h"
#include "engine/procfs.h"
#include "store/scope.h"

#define SECOND 1000000000ll
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* A kernel without time namespaces has no such file: nothing is added. */
static struct clock_offsets read_offsets(int proc, const char *name)
{
	struct clock_offsets offsets = { 0 };
	cleanup_free char *text = procfs_read_once(proc, name, NULL, NULL);
	char *cursor = text;
	for (char *line; cursor && (line = strsep(&cursor, "\n"));) {
		long long seconds, ns;
		if (sscanf(line, "monotonic %lld %lld", &seconds, &ns) == 2)
			offsets.monotonic = seconds * SECOND + ns;
		else if (sscanf(line, "boottime %lld %lld", &seconds, &ns) == 2)
			offsets.boottime = seconds * SECOND + ns;
	}
	return offsets;
}

struct clock_offsets clocks_own_offsets(void)
{
	return read_offsets(AT_FDCWD, "/proc/self/timens_offsets");
}

char *clocks_boot_id(void)
{
	char *text = procfs_read_once(AT_FDCWD, BOOT_ID, NULL, NULL);
	if (text)
		text[strcspn(text, "\n")] = '\0';
	return text;
}

const struct other_kind kind_clocks = {
	.name = "clocks",
	.keeps = "CLOCK_MONOTONIC and CLOCK_BOOTTIME: in the same boot time has passed, elsewhere they go on where they "
		 "stood (--clocks); time namespaces of whole trees",
	.refuses = "more than one time namespace in a tree",
	.shown_by = "clock_absolute clocks",
};

/* --- dump ------------------------------------------------------------------------- */

int clocks_allow(struct dump *dump, const struct process *process, const char *link, const char *ours,
		 struct fsnap_error *err)
{
	char children[32] = "", *known = dump->time_namespace;
	if (readlinkat(process->proc, "ns/time_for_children", children, sizeof(children) - 1) < 0)
		return procfs_failed(process->proc, "ns/time_for_children", err);
	if (!known[0]) {
		snprintf(known, sizeof(dump->time_namespace), "%s", link);
		dump->other_clocks = strcmp(link, ours) != 0;
		if (dump->other_clocks) /* says what its children have, which is the same */
			dump->clocks = read_offsets(process->proc, "timens_offsets");
	}
	if (strcmp(children, link) == 0 && strcmp(known, link) == 0)
		return 0;
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) %s", process->pid, process->comm,
	     strcmp(known, link) ? "has another time namespace than others of its tree" :
				   "has unshared its time namespace: its children would have another one");
	return error_hint(err, "save a process whose tree lives in one time namespace");
}

void clocks_put(const struct dump *dump, image_tree *tree)
{
	struct clock_offsets own = clocks_own_offsets(), its = dump->other_clocks ? dump->clocks : own;
	tree->monotonic_ns += (uint64_t)(its.monotonic - own.monotonic);
	tree->boottime_ns += (uint64_t)(its.boottime - own.boottime);
	tree->monotonic_offset_ns = its.monotonic;
	tree->boottime_offset_ns = its.boottime;
	tree->boot_id = clocks_boot_id();
}
