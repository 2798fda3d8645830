#include "engine/heat/fetch.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/cache_shape.h"
#include "engine/heat/apart.h"
#include "engine/heat/heat.h"
#include "store/scope.h"

#define PATIENCE_MS 1000
#define NEAR 4u /* pages between two runs that are worth reading rather than leaving out */

/* A stretch while the list is being made. */
struct piece {
	struct warm_stretch stretch;
	unsigned heat;
	uint64_t between; /* pages */
};

struct pieces {
	struct piece *piece;
	size_t n, room;
};

/* --- files --------------------------------------------------------------------------- */

/* NULL: it is what it was. */
static const char *why_not(int fd, const image_identity *then)
{
	struct stat now;
	if (fd < 0)
		return errno == ENOENT ? "it is gone" : strerror(errno);
	if (fstat(fd, &now) < 0)
		return strerror(errno);
	if (!S_ISREG(now.st_mode))
		return "it is no regular file any more";
	if ((uint64_t)now.st_size != then->size)
		return (uint64_t)now.st_size < then->size ? "it has shrunk since" : "it has grown since";
	if (now.st_mtim.tv_sec * 1000000000ll + now.st_mtim.tv_nsec != then->mtime_ns)
		return "it was changed since";
	return NULL;
}

static int open_file(const image_heat *heat, const struct remap *remap, struct leases *leases,
		     fetch_skipped_fn *skipped, void *arg)
{
	if (leases && leases_hold(leases, heat->identity.ino))
		return -1; /* whoever holds it reads it himself */
	cleanup_free char *moved = remap ? remap_path(remap, heat->identity.path, NULL) : NULL;
	const char *path = moved ? moved : heat->identity.path;
	int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
	cleanup_fd int fd = open(path, flags | O_NOATIME);
	if (fd < 0 && errno == EPERM)
		fd = open(path, flags);
	const char *why = why_not(fd, &heat->identity);
	if (!why) {
		/* Just what is asked for: the kernel's own read-ahead would bring in more. */
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		return steal_fd(&fd);
	}
	if (skipped)
		skipped(arg, path, why);
	return -1;
}

static int keep_fd(struct fetch *fetch, int fd)
{
	int *fds = realloc(fetch->fds, (fetch->n_fds + 1) * sizeof(*fds));
	if (!fds) {
		close(fd);
		return -1;
	}
	fetch->fds = fds;
	fds[fetch->n_fds++] = fd;
	return 0;
}

/* --- stretches --------------------------------------------------------------------------- */

static int add_piece(struct pieces *pieces, int fd, const image_heat_run *run)
{
	struct piece *last = pieces->n ? &pieces->piece[pieces->n - 1] : NULL;
	uint64_t offset = run->page * STORE_PAGE, bytes = (uint64_t)run->pages * STORE_PAGE;
	if (last && last->stretch.fd == fd && last->heat == run->heat &&
	    offset - (last->stretch.offset + last->stretch.bytes) <= NEAR * STORE_PAGE) {
		last->between += (offset - (last->stretch.offset + last->stretch.bytes)) / STORE_PAGE;
		last->stretch.bytes = offset + bytes - last->stretch.offset;
		return 0;
	}
	if (pieces->n == pieces->room) {
		size_t room = pieces->room ? 2 * pieces->room : 256;
		struct piece *more = realloc(pieces->piece, room * sizeof(*more));
		if (!more)
			return -1;
		pieces->piece = more;
		pieces->room = room;
	}
	pieces->piece[pieces->n++] = (struct piece){ { fd, offset, bytes }, run->heat, 0 };
	return 0;
}

/* Runs are the image's word: nothing behind the end of the file, each behind the one before. */
static bool is_plausible(const image_heat *heat)
{
	uint64_t end = 0, pages = (heat->identity.size + STORE_PAGE - 1) / STORE_PAGE;
	for (u_int i = 0; i < heat->runs.runs_len; i++) {
		const image_heat_run *run = &heat->runs.runs_val[i];
		if (run->pages == 0 || run->page < end || run->page > pages || run->pages > pages - run->page || run->heat > 3)
			return false;
		end = run->page + run->pages;
	}
	return true;
}

/* Where a file has pages that were used again and again, those used once are what a pass over it left behind. Not so
 * in a file as a whole used once, by a program that has just begun, say; and a small one costs little. */
static unsigned coldest_in(const image_heat *heat, int which, unsigned coldest)
{
	if (which != FSNAP_PREFETCH_HOT || coldest < CACHE_WARM)
		return coldest;
	bool has_hot = heat_pages(heat, CACHE_HOT) > 0;
	bool is_large = heat_pages(heat, CACHE_WARM) * STORE_PAGE >= HEAT_WORTH;
	return has_hot && is_large ? CACHE_HOT : CACHE_WARM;
}

static int add_file(struct fetch *fetch, struct pieces *pieces, const image_heat *heat, unsigned coldest,
		    const struct remap *remap, struct leases *leases, fetch_skipped_fn *skipped, void *arg)
{
	if (heat_pages(heat, coldest) == 0)
		return 0;
	if (!is_plausible(heat)) {
		if (skipped)
			skipped(arg, heat->identity.path, "what the image says of it is impossible");
		return 0;
	}
	int fd = open_file(heat, remap, leases, skipped, arg);
	if (fd < 0)
		return 0;
	if (keep_fd(fetch, fd) < 0)
		return -1;
	for (u_int i = 0; i < heat->runs.runs_len; i++)
		if (heat->runs.runs_val[i].heat >= coldest && add_piece(pieces, fd, &heat->runs.runs_val[i]) < 0)
			return -1;
	return 0;
}

static int hottest_first(const void *a, const void *b)
{
	const struct piece *left = a, *right = b;
	if (left->heat != right->heat)
		return left->heat > right->heat ? -1 : 1;
	if (left->stretch.fd != right->stretch.fd)
		return left->stretch.fd < right->stretch.fd ? -1 : 1;
	return left->stretch.offset < right->stretch.offset ? -1 : 1;
}

static int settle(struct fetch *fetch, struct pieces *pieces)
{
	fetch->stretches = malloc((pieces->n + 1) * sizeof(*fetch->stretches));
	fetch->between = malloc((pieces->n + 1) * sizeof(*fetch->between));
	if (!fetch->stretches || !fetch->between)
		return -1;
	if (pieces->n)
		qsort(pieces->piece, pieces->n, sizeof(*pieces->piece), hottest_first);
	for (size_t i = 0; i < pieces->n; i++) {
		fetch->stretches[i] = pieces->piece[i].stretch;
		fetch->between[i] = pieces->piece[i].between;
		fetch->bytes += pieces->piece[i].stretch.bytes;
	}
	fetch->n = pieces->n;
	return 0;
}

/* Where nobody could tell how warm pages are, all that were cached count. */
static unsigned coldest_of(struct image *image, size_t n, int which)
{
	unsigned sources = 0;
	for (size_t i = 0; i < n; i++) {
		image_heat heat = { 0 };
		if (image_hint_get(image, IMAGE_HEAT, i, (xdrproc_t)xdr_image_heat, &heat, NULL) == 0)
			sources |= heat.source;
		xdr_free((xdrproc_t)xdr_image_heat, (char *)&heat);
	}
	return which == FSNAP_PREFETCH_ALL || !(sources & (HEAT_FOLIOS | HEAT_WATCH)) ? CACHE_COLD : CACHE_WARM;
}

int fetch_plan(struct fetch *fetch, struct image *image, int which, const struct remap *remap, bool opens,
	       fetch_skipped_fn *skipped, void *arg, struct fsnap_error *err)
{
	struct pieces pieces = { 0 };
	*fetch = (struct fetch){ 0 };
	if (which == FSNAP_PREFETCH_OFF)
		return 0;
	if (image_hints(image, err) < 0)
		return -1;
	size_t n = image_hint_count(image, IMAGE_HEAT);
	unsigned coldest = coldest_of(image, n, which);
	struct leases leases = { 0 };
	int result = 0;
	for (size_t i = 0; result == 0 && i < n; i++) {
		image_heat heat = { 0 };
		result = image_hint_get(image, IMAGE_HEAT, i, (xdrproc_t)xdr_image_heat, &heat, err);
		if (result == 0 && add_file(fetch, &pieces, &heat, coldest_in(&heat, which, coldest), remap,
					    opens && heat.open ? NULL : &leases, skipped, arg) < 0)
			result = fail(err, FSNAP_E_NOMEM, ENOMEM, "what to prefetch");
		xdr_free((xdrproc_t)xdr_image_heat, (char *)&heat);
	}
	if (result == 0 && settle(fetch, &pieces) < 0)
		result = fail(err, FSNAP_E_NOMEM, ENOMEM, "what to prefetch");
	free(pieces.piece);
	leases_free(&leases);
	return result;
}

void fetch_free(struct fetch *fetch)
{
	for (size_t i = 0; i < fetch->n_fds; i++)
		close(fetch->fds[i]);
	if (fetch->started && fetch->who >= 0)
		close(fetch->who);
	free(fetch->fds);
	free(fetch->stretches);
	free(fetch->between);
	if (fetch->progress)
		munmap(fetch->progress, sizeof(*fetch->progress));
	*fetch = (struct fetch){ 0 };
}

bool fetch_needed(const struct fetch *fetch)
{
	for (size_t i = 0; i < fetch->n; i++)
		if (!warm_present(&fetch->stretches[i], fetch->between[i]))
			return true;
	return false;
}

/* --- a process of its own -------------------------------------------------------------------- */

struct fetching {
	const struct warm_order *order;
	struct warm_progress *progress;
};

static void be_fetcher(void *arg)
{
	const struct fetching *fetching = arg;
	warm_run(fetching->order, fetching->progress);
}

int fetch_start(struct fetch *fetch, const struct warm_order *order, struct fsnap_error *err)
{
	fetch->progress = mmap(NULL, sizeof(*fetch->progress), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (fetch->progress == MAP_FAILED) {
		fetch->progress = NULL;
		return fail(err, FSNAP_E_NOMEM, errno, "prefetching");
	}
	struct fetching fetching = { order, fetch->progress };
	if (apart_run(be_fetcher, &fetching, fetch->fds, fetch->n_fds, &fetch->who, "prefetches", err) < 0)
		return -1;
	fetch->started = true;
	return 0;
}

/* A reading of its takes about a millisecond; of a slow disk, longer. */
void fetch_stop(struct fetch *fetch)
{
	struct pollfd end = { .fd = fetch->who, .events = POLLIN };
	if (!fetch->started)
		return;
	__atomic_store_n(&fetch->progress->stop, 1, __ATOMIC_RELAXED);
	if (fetch->who >= 0)
		poll(&end, 1, PATIENCE_MS);
}
