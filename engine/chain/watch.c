/*
 * watch.c - images of a running tree one after the other, each building on the one before; the last of them stay.
 *
 * The chain is our own: nobody else keeps it, and the newest image stays open. Names of old images go at once; their
 * files, on which newer ones may build, when nothing refers to them any more. That takes a look at all images, so it
 * is done now and then (COLLECT_EVERY), and the newest image carries on what little is left of old ones
 * (image_writer_tidy()), so that lineages stay short and space bounded.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/laps.h"
#include "engine/procfs.h"
#include "engine/sized.h"
#include "store/scope.h"

#define COLLECT_EVERY 32
#define TIDY_PAGES 2048u   /* at most so many of old images are copied into each new one: 8 MiB */
#define GIVE_UP_AFTER 1000 /* moments in a row at which the tree could not be saved */

struct watch {
	const struct fsnap_watch_options *options;
	struct fsnap_watch_report *report;
	struct store *store;
	struct chain *chain;
	int root; /* pidfd */
	int claim; /* keeper_claim_watch() */
	char name[FSNAP_NAME_MAX + 1];
	uint64_t number; /* of the last image */
	uint64_t oldest; /* of ours that is there */
	unsigned skipped; /* in a row */
	unsigned dying;	  /* the last of these, in a row, because the tree was about to end, or somebody in it */
	uint64_t still_ns; /* the tree stood still for the last one; at most so long, if that one came to nothing */
};

static void image_name_of(const struct watch *watch, uint64_t number, char *name, size_t size)
{
	snprintf(name, size, "%.*s-%06" PRIu64, FSNAP_NAME_MAX - 21, watch->name, number);
}

/* --- beginning ---------------------------------------------------------------------------------- */

static int choose_name(struct watch *watch, struct fsnap_error *err)
{
	pid_t pid = watch->options->pid;
	struct procfs_stat stat;
	if (watch->options->name) {
		snprintf(watch->name, sizeof(watch->name), "%s", watch->options->name);
		return store_check_name(watch->name, err);
	}
	cleanup_fd int proc = procfs_open(pid, err);
	if (proc < 0 || procfs_stat(proc, "stat", &stat, err) < 0)
		return -1;
	snprintf(watch->name, sizeof(watch->name), "%s-%d", stat.comm, pid);
	for (char *c = watch->name; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *c) ||
		    (c == watch->name && (*c == '.' || *c == '-')))
			*c = '_';
	return 0;
}

/* Behind those that an earlier watch of this name has left. */
static int find_number(struct watch *watch, struct fsnap_error *err)
{
	cleanup_free struct store_entry *entries = NULL;
	size_t count, length = strlen(watch->name);
	if (store_list(watch->store, &entries, &count, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		char *end;
		const char *name = entries[i].name;
		if (strncmp(name, watch->name, length) != 0 || name[length] != '-')
			continue;
		uint64_t number = strtoull(name + length + 1, &end, 10);
		if (!*end && number > watch->number && number < UINT64_MAX / 2)
			watch->number = number;
	}
	watch->oldest = watch->number + 1;
	return 0;
}

static int claim_tree(struct watch *watch, struct fsnap_error *err)
{
	pid_t pid = watch->options->pid;
	struct procfs_stat stat;
	cleanup_fd int proc = procfs_open(pid, err);
	if (proc < 0 || procfs_stat(proc, "stat", &stat, err) < 0)
		return -1;
	return keeper_claim_watch(pid, stat.start_time, &watch->claim, err);
}

static int watch_open(struct watch *watch, struct fsnap_error *err)
{
	char dir[4096];
	const char *store = watch->options->store;
	watch->root = watch->claim = -1;
	if (watch->options->every_us == 0)
		return fail(err, FSNAP_E_USAGE, 0, "an image every 0 microseconds cannot be");
	if (watch->options->max_share > 1000)
		return fail(err, FSNAP_E_USAGE, 0, "standing still for more than all of the time cannot be");
	if (choose_name(watch, err) < 0 || (!store && fsnap_default_store(dir, sizeof(dir), err) < 0))
		return -1;
	watch->root = (int)syscall(SYS_pidfd_open, watch->options->pid, 0);
	if (watch->root < 0)
		return fail(err, FSNAP_E_NO_PROCESS, errno, "process %d", watch->options->pid);
	if (claim_tree(watch, err) < 0)
		return -1;
	watch->store = store_open(store ? store : dir, STORE_WRITE, err);
	watch->chain = chain_new();
	if (!watch->store || find_number(watch, err) < 0)
		return -1;
	if (!watch->chain)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "watching process %d", watch->options->pid);
	if (watch->options->encrypt && store_set_key(watch->store, watch->options->encrypt, err) < 0)
		return -1;
	watch->chain->keys = watch->options->encrypt ? watch->store : NULL;
	watch->chain->stays_open = true;
	watch->chain->tidy = TIDY_PAGES;
	gentle_begin(&watch->chain->gentle);
	return 0;
}

/* --- one image -------------------------------------------------------------------------------------- */

static void drop_old(struct watch *watch)
{
	char name[FSNAP_NAME_MAX + 1];
	while (watch->options->keep && watch->number - watch->oldest >= watch->options->keep) {
		image_name_of(watch, watch->oldest++, name, sizeof(name));
		store_remove_name(watch->store, name, NULL); /* the user may have done so */
	}
	if (watch->number % COLLECT_EVERY == 0)
		store_collect(watch->store, NULL);
}

static void account(struct watch *watch, const struct fsnap_dump_report *image)
{
	struct fsnap_watch_report *report = watch->report;
	snprintf(report->image, sizeof(report->image), "%s", image->image);
	report->images++;
	report->bytes += image->bytes;
	report->frozen_us += image->frozen_us;
	if (image->frozen_us > report->frozen_max_us)
		report->frozen_max_us = image->frozen_us;
	if (watch->options->image)
		watch->options->image(watch->options->image_arg, image);
}

static bool has_ended(const struct watch *watch)
{
	struct pollfd polled = { watch->root, POLLIN, 0 };
	return poll(&polled, 1, 0) > 0;
}

/* What cannot be saved now may be in the next moment; what the store cannot take it will not take then. */
static bool may_pass(const struct fsnap_error *why)
{
	return why->code == FSNAP_E_UNSUPPORTED || why->code == FSNAP_E_TRACED || why->code == FSNAP_E_SYSTEM ||
	       why->code == FSNAP_E_TARGET_DIED || why->code == FSNAP_E_TARGET_BUSY;
}

/* That it could not be saved while it ended is no more to be told than that it cannot be saved now. */
static int tree_ended(struct watch *watch)
{
	struct fsnap_watch_report *report = watch->report;
	report->skipped -= watch->dying;
	if (!report->skipped)
		report->why[0] = '\0';
	report->ended = 1;
	return 1;
}

/* 1: it is over. */
static int make_image(struct watch *watch, struct fsnap_error *err)
{
	char name[FSNAP_NAME_MAX + 1];
	image_name_of(watch, watch->number + 1, name, sizeof(name));
	struct fsnap_dump_options options = {
		.size = sizeof(options), .pid = watch->options->pid, .store = watch->options->store, .name = name,
		.heat = FSNAP_HEAT_NEVER, .external = watch->options->external, .encrypt = watch->options->encrypt,
		.cipher = watch->options->cipher, .compress = watch->options->compress,
	};
	struct fsnap_dump_report image = { .size = sizeof(image) };
	struct fsnap_error why = { 0 };
	uint64_t begun = clock_ns(CLOCK_MONOTONIC);
	int result = dump_chained(&options, watch->chain, &image, &why);
	watch->still_ns = result < 0 ? clock_ns(CLOCK_MONOTONIC) - begun : image.frozen_us * 1000;
	if (result == 0) {
		watch->number++;
		watch->skipped = watch->dying = 0;
		account(watch, &image);
		drop_old(watch);
		return 0;
	}
	if (watch->report->images && has_ended(watch))
		return tree_ended(watch);
	if (!watch->report->images || !may_pass(&why) || ++watch->skipped > GIVE_UP_AFTER) {
		*err = why;
		return -1;
	}
	watch->dying = why.code == FSNAP_E_TARGET_DIED ? watch->dying + 1 : 0;
	watch->report->skipped++;
	snprintf(watch->report->why, sizeof(watch->report->why), "%s", why.message);
	return 0;
}

/* --- for ever ------------------------------------------------------------------------------------------ */

/* Until the next moment. 1: it is over. */
static int await(struct watch *watch, uint64_t until)
{
	struct pollfd polled[] = { { watch->root, POLLIN, 0 },
				   { watch->options->stop_fd > 0 ? watch->options->stop_fd : -1, POLLIN, 0 } };
	for (;;) {
		uint64_t now = clock_ns(CLOCK_MONOTONIC), left = until > now ? until - now : 0;
		struct timespec wait = { (time_t)(left / 1000000000), (long)(left % 1000000000) };
		int n = ppoll(polled, 2, &wait, NULL);
		if (n < 0 && errno == EINTR)
			continue;
		return n > 0 && polled[0].revents ? tree_ended(watch) : n != 0;
	}
}

/* Moments stay where they are, those that have passed are left out: *next is not before `earliest`. */
static uint64_t leave_out(uint64_t *next, uint64_t every, uint64_t earliest)
{
	uint64_t n = earliest > *next ? (earliest - *next + every - 1) / every : 0;
	*next += n * every;
	return n;
}

/* What one freeze took from the tree it gets back before the next: however long they are, and whoever else wants the
 * processors, their share of any time is bounded. */
static int go_on(struct watch *watch, struct fsnap_error *err)
{
	uint64_t every = watch->options->every_us * 1000, next = clock_ns(CLOCK_MONOTONIC);
	uint64_t share = watch->options->max_share ? watch->options->max_share : FSNAP_WATCH_SHARE;
	for (;;) {
		uint64_t begun = clock_ns(CLOCK_MONOTONIC);
		int result = make_image(watch, err);
		if (result)
			return result;
		next += every;
		watch->report->late += leave_out(&next, every, clock_ns(CLOCK_MONOTONIC));
		watch->report->spared += leave_out(&next, every, begun + watch->still_ns / share * 1000);
		if (await(watch, next))
			return 1;
	}
}

static uint64_t processor_us(void)
{
	struct rusage used = { 0 };
	getrusage(RUSAGE_SELF, &used);
	return (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000u +
	       (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

int fsnap_watch(const struct fsnap_watch_options *options, struct fsnap_watch_report *report, struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_watch_options known;
	struct fsnap_watch_report own = { 0 };
	sized_take(&known, sizeof(known), options);
	struct watch watch = { .options = &known, .report = &own };
	uint64_t mark = clock_ns(CLOCK_MONOTONIC), used = processor_us();
	err = err ? err : &ignored;
	int result = watch_open(&watch, err);
	if (result == 0)
		result = go_on(&watch, err);
	if (watch.chain)
		gentle_end(&watch.chain->gentle);
	chain_free(watch.chain);
	if (watch.store && own.images)
		store_collect(watch.store, NULL);
	store_close(watch.store);
	scope_close(&watch.root);
	scope_close(&watch.claim);
	own.kept = own.images ? watch.number - watch.oldest + 1 : 0;
	own.total_us = lap(&mark);
	own.cpu_us = processor_us() - used;
	sized_tell(report, &own, sizeof(own));
	return result < 0 ? -1 : 0;
}
