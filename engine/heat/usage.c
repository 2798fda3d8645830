/*
 * usage.c - was what was prefetched of use? A watch on the restored tree, begun before its first instruction,
 * tells what it reads; blocks of 16 KiB are compared.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "bpf/touch.h"
#include "engine/heat/fetch.h"
#include "engine/heat/heat.h"
#include "engine/sized.h"
#include "store/scope.h"

#define BLOCK (16u << 10)
#define BLOCKS_PER_MIB 64u

/* One file of the plan, and which of its blocks are in it. */
struct planned {
	dev_t dev;
	ino_t ino;
	uint64_t blocks;
	uint8_t *wanted; /* a bit a block */
};

struct fsnap_prefetching {
	struct fetch fetch;
	pid_t root;
	struct planned *planned; /* by place in fetch.fds */
	/* while counting */
	uint64_t touched, used;
};

static void mark(struct planned *planned, const struct warm_stretch *stretch)
{
	uint64_t end = (stretch->offset + stretch->bytes + BLOCK - 1) / BLOCK;
	for (uint64_t block = stretch->offset / BLOCK; block < end && block < planned->blocks; block++)
		planned->wanted[block / 8] |= (uint8_t)(1 << block % 8);
}

static int plan_of(struct planned *planned, const struct fetch *fetch, int fd)
{
	struct stat stat;
	if (fstat(fd, &stat) < 0)
		return -1;
	planned->dev = stat.st_dev;
	planned->ino = stat.st_ino;
	planned->blocks = ((uint64_t)stat.st_size + BLOCK - 1) / BLOCK;
	planned->wanted = calloc(1, planned->blocks / 8 + 1);
	for (size_t i = 0; planned->wanted && i < fetch->n; i++)
		if (fetch->stretches[i].fd == fd)
			mark(planned, &fetch->stretches[i]);
	return planned->wanted ? 0 : -1;
}

struct fsnap_prefetching *usage_begin(struct fetch *fetch, pid_t root, struct fsnap_error *err)
{
	struct fsnap_prefetching *usage = calloc(1, sizeof(*usage));
	if (usage)
		usage->planned = calloc(fetch->n_fds + 1, sizeof(*usage->planned));
	int result = usage && usage->planned ? 0 : -1;
	for (size_t i = 0; result == 0 && i < fetch->n_fds; i++)
		result = plan_of(&usage->planned[i], fetch, fetch->fds[i]);
	if (result < 0)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "statistics of prefetching");
	else
		result = heat_watch_start(root, err);
	if (usage && result == 0) {
		usage->root = root;
		usage->fetch = *fetch;
		*fetch = (struct fetch){ 0 };
		return usage;
	}
	fsnap_prefetching_free(usage);
	return NULL;
}

/* --- counting ------------------------------------------------------------------------- */

static const struct planned *planned_file(const struct fsnap_prefetching *usage, const struct touch_file *file)
{
	dev_t dev = makedev(file->dev >> 20, file->dev & 0xfffff);
	for (size_t i = 0; i < usage->fetch.n_fds; i++)
		if (usage->planned[i].ino == file->ino && usage->planned[i].dev == dev)
			return &usage->planned[i];
	return NULL;
}

static int count_range(void *arg, const struct touch_key *key, const struct touch_range *range)
{
	struct fsnap_prefetching *usage = arg;
	const struct planned *planned = planned_file(usage, &key->file);
	for (unsigned i = 0; i < BLOCKS_PER_MIB; i++) {
		uint64_t block = key->mib * BLOCKS_PER_MIB + i;
		if (!(range->blocks >> i & 1))
			continue;
		usage->touched++;
		if (planned && block < planned->blocks && planned->wanted[block / 8] >> block % 8 & 1)
			usage->used++;
	}
	return 0;
}

static uint64_t count_wanted(const struct fsnap_prefetching *usage)
{
	uint64_t wanted = 0;
	for (size_t i = 0; i < usage->fetch.n_fds; i++)
		for (uint64_t byte = 0; byte <= usage->planned[i].blocks / 8; byte++)
			wanted += (uint64_t)__builtin_popcount(usage->planned[i].wanted[byte]);
	return wanted;
}

int fsnap_prefetching_stats(struct fsnap_prefetching *usage, struct fsnap_prefetch_stats *stats,
			    struct fsnap_error *err)
{
	const struct warm_progress *progress = usage->fetch.progress;
	struct fsnap_prefetch_stats own = { .planned_bytes = count_wanted(usage) * BLOCK };
	usage->touched = usage->used = 0;
	if (heat_watch_read(usage->root, count_range, usage, err) < 0)
		return -1;
	own.touched_bytes = usage->touched * BLOCK;
	own.used_bytes = usage->used * BLOCK;
	if (progress) {
		own.read_bytes = progress->read;
		own.present_bytes = progress->present;
		own.failed_bytes = progress->failed;
		own.total_us = progress->us;
		own.yielded = progress->yielded;
		own.scarce = (int)progress->scarce;
	}
	own.done = progress ? (int)__atomic_load_n(&progress->done, __ATOMIC_ACQUIRE) : 1;
	sized_tell(stats, &own, sizeof(own));
	return 0;
}

void fsnap_prefetching_free(struct fsnap_prefetching *usage)
{
	if (!usage)
		return;
	if (usage->root)
		heat_watch_end(usage->root, NULL);
	for (size_t i = 0; usage->planned && i < usage->fetch.n_fds; i++)
		free(usage->planned[i].wanted);
	free(usage->planned);
	fetch_free(&usage->fetch);
	free(usage);
}
