/*
 * readers.c - BPF programs that tell how long threads still sleep, and whether mappings have changed. Loading one takes
 * longer than all the rest of an image: who makes one every ten milliseconds keeps them, and what else stays as it is.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/fds.h"
#include "bpf/flags.h"
#include "bpf/sleep.h"
#include "bpf/vmas.h"
#include "bpf/wake.h"
#include "engine/chain/chain.h"
#include "engine/kinds/peek.h"
#include "engine/machine.h"

static struct readers *kept(struct dump *dump)
{
	return dump->chain && dump->chain->stays_open ? &dump->chain->readers : NULL;
}

struct wake_reader *readers_wake(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return wake_open(NULL);
	if (!readers->wake && !readers->no_wake)
		readers->no_wake = !(readers->wake = wake_open(NULL));
	if (readers->wake)
		wake_forget(readers->wake);
	return readers->wake;
}

struct sleep_reader *readers_sleep(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return sleep_open(NULL);
	if (!readers->sleep && !readers->no_sleep)
		readers->no_sleep = !(readers->sleep = sleep_open(NULL));
	return readers->sleep;
}

void readers_leave_wake(struct dump *dump, struct wake_reader *reader)
{
	if (!kept(dump))
		wake_close(reader);
}

void readers_leave_sleep(struct dump *dump, struct sleep_reader *reader)
{
	if (!kept(dump))
		sleep_close(reader);
}

/* Asked once for each large process: of one dump it is kept, too. */
struct flags_reader *readers_flags(struct dump *dump)
{
	struct readers *readers = kept(dump);
	struct flags_reader **reader = readers ? &readers->flags : &dump->flags;
	bool *missing = readers ? &readers->no_flags : &dump->no_flags;
	if (!*reader && !*missing)
		*missing = !(*reader = flags_open(NULL));
	return *reader;
}

struct flags_reader *readers_flags_there(struct dump *dump)
{
	const struct readers *readers = kept(dump);
	return readers ? readers->flags : dump->flags;
}

void readers_leave_flags(struct dump *dump)
{
	flags_close(dump->flags);
	dump->flags = NULL;
}

void readers_free(struct readers *readers)
{
	flags_close(readers->flags);
	wake_close(readers->wake);
	sleep_close(readers->sleep);
	vmas_close(readers->vmas);
	fds_close(readers->fds);
	peek_close(readers->peek);
	if (readers->machine)
		xdr_free((xdrproc_t)xdr_image_machine, (char *)readers->machine);
	free(readers->machine);
	cgroup_mounts_free(&readers->mounts);
	if (readers->mountinfo)
		close(readers->mountinfo - 1);
	*readers = (struct readers){ 0 };
}

/* --- the machine ------------------------------------------------------------------------------------- */

/* The kernel, the processor and the vDSO that it gave us are what they were when we began. */
int readers_machine(struct dump *dump, image_machine *machine, struct fsnap_error *err)
{
	struct readers *readers = kept(dump);
	if (readers && readers->machine) {
		*machine = *readers->machine;
		return 0;
	}
	if (machine_describe(machine, err) < 0)
		return -1;
	if (readers && (readers->machine = malloc(sizeof(*machine))))
		*readers->machine = *machine;
	return 0;
}

void readers_leave_machine(struct dump *dump, image_machine *machine)
{
	struct readers *readers = kept(dump);
	if (!readers || !readers->machine)
		xdr_free((xdrproc_t)xdr_image_machine, (char *)machine);
}

/* --- where control groups are ---------------------------------------------------------------------------- */

/* It is open since before the mounts were read; a poll tells that they have changed since the last one
 * (mounts_poll(), fs/proc_namespace.c). */
static bool have_changed(struct readers *readers)
{
	struct pollfd polled = { .fd = readers->mountinfo - 1 };
	if (readers->mountinfo)
		return poll(&polled, 1, 0) != 0;
	readers->mountinfo = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC) + 1;
	return true;
}

bool readers_take_cgroup_mounts(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return false;
	if (have_changed(readers))
		cgroup_mounts_free(&readers->mounts);
	dump->cgroup_mounts = readers->mounts;
	readers->mounts = (struct cgroup_mounts){ 0 };
	return dump->cgroup_mounts.n;
}

void readers_leave_cgroup_mounts(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers || !readers->mountinfo || readers->mounts.n)
		return;
	readers->mounts = dump->cgroup_mounts;
	dump->cgroup_mounts = (struct cgroup_mounts){ 0 };
}

/* --- what is looked at behind descriptors ------------------------------------------------------------ */

struct peek *readers_peek(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return peek_open();
	if (!readers->peek && !readers->no_peek)
		readers->no_peek = !(readers->peek = peek_open());
	return readers->peek;
}

void readers_leave_peek(struct dump *dump, struct peek *peek)
{
	if (!kept(dump))
		peek_close(peek);
}

/* It is a hint: whoever was wrong waits for it during the freeze, once, because it stays open from then on. What tells of
 * asynchronous I/O does not. */
bool readers_know_files(struct dump *dump)
{
	const struct readers *readers = kept(dump);
	return readers && readers->looked && !readers->wants_async;
}

void readers_note_files(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return;
	readers->looked = true;
	readers->wants_async = dump->async;
}

/* --- mappings ------------------------------------------------------------------------------------------ */

struct vmas_reader *readers_vmas(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (readers && !readers->vmas && !readers->no_vmas)
		readers->no_vmas = !(readers->vmas = vmas_open(NULL));
	return readers ? readers->vmas : NULL;
}

const struct vmas_range *readers_bare(struct dump *dump, const struct process *process, size_t *n)
{
	struct readers *readers = kept(dump);
	*n = 0;
	return readers && readers->vmas ? vmas_bare(readers->vmas, process->live, n) : NULL;
}

/* --- descriptors ----------------------------------------------------------------------------------------- */

bool readers_descriptors(struct dump *dump, const struct process *process)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return false;
	if (!readers->fds && !readers->no_fds && !dump->still)
		readers->no_fds = !(readers->fds = fds_open(NULL));
	if (!dump->still)
		return false;
	readers->told = readers->fds ? fds_tell(readers->fds, process->live, &readers->n_told) : NULL;
	readers->told_of = process;
	return readers->told;
}

int *readers_numbers(struct dump *dump, size_t *n)
{
	const struct readers *readers = &dump->chain->readers;
	int *numbers = malloc((readers->n_told + 1) * sizeof(*numbers));
	for (size_t i = 0; numbers && i < readers->n_told; i++)
		numbers[i] = (int)readers->told[i].fd;
	*n = readers->n_told;
	return numbers;
}

char *readers_info(struct dump *dump, const struct process *process, int number)
{
	const struct readers *readers = kept(dump);
	if (!readers || !readers->told || readers->told_of != process)
		return NULL;
	size_t low = 0, high = readers->n_told;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (readers->told[middle].fd < (unsigned)number)
			low = middle + 1;
		else
			high = middle;
	}
	const struct fds_told *told = &readers->told[low];
	char *text;
	if (low == readers->n_told || told->fd != (unsigned)number || !told->plain ||
	    asprintf(&text, "pos:\t%llu\nflags:\t0%o\n", (unsigned long long)told->pos, told->flags) < 0)
		return NULL;
	return text;
}
