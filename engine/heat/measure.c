#include <stdlib.h>
#include <unistd.h>

#include "bpf/cache.h"
#include "engine/heat/heat.h"

#define PAGES_PER_MIB 256u

/* The files of one question to the page cache. */
struct batch {
	struct heat_file **files;
	uint64_t pages;
	bool well_watched;
	bool no_memory;
};

/* Heat is the kernel's, who keeps it per folio: one hot page makes 2 MiB hot. A watch that has gone on for long
 * enough knows better where in it that page is: a MiB that it has not seen is cached and no more. */
static int add_run(struct heat_file *file, const struct cache_run *run, bool well_watched)
{
	uint64_t page = run->page, end = run->page + run->pages;
	if (!well_watched || !file->touched || file->mapped)
		return heat_runs_add(file, page, run->pages, run->heat);
	while (page < end) {
		uint64_t mib = page / PAGES_PER_MIB, next = (mib + 1) * PAGES_PER_MIB;
		bool seen = mib < file->mibs && file->touched[mib / 8] >> mib % 8 & 1;
		next = next < end ? next : end;
		if (heat_runs_add(file, page, next - page, seen ? run->heat : CACHE_COLD) < 0)
			return -1;
		page = next;
	}
	return 0;
}

static int note(void *arg, const struct cache_run *run)
{
	struct batch *batch = arg;
	batch->pages += run->pages;
	if (add_run(batch->files[run->file], run, batch->well_watched) < 0)
		batch->no_memory = true;
	return batch->no_memory;
}

typedef int ask_fn(void *how, const int *fds, size_t n, cache_visit *visit, void *arg, struct fsnap_error *err);

static int ask_folios(void *reader, const int *fds, size_t n, cache_visit *visit, void *arg,
		      struct fsnap_error *err)
{
	return cache_read(reader, fds, n, visit, arg, err);
}

static int ask_mincore(void *unused, const int *fds, size_t n, cache_visit *visit, void *arg,
		       struct fsnap_error *err)
{
	(void)unused;
	return cache_read_plain(fds, n, visit, arg, err);
}

/* Asks about all files, as many at a time as can be; *pages that are in the cache. */
static int ask(struct heat *heat, ask_fn *how, void *arg, unsigned source, uint64_t *pages,
	       struct fsnap_error *err)
{
	int fds[CACHE_FILES];
	*pages = 0;
	for (size_t done = 0, n; done < heat->n; done += n) {
		struct batch batch = { .files = heat->files + done, .well_watched = heat->well_watched };
		for (n = 0; n < CACHE_FILES && done + n < heat->n; n++) {
			fds[n] = heat->files[done + n]->fd;
			heat->files[done + n]->image.source |= source;
		}
		int result = how(arg, fds, n, note, &batch, err);
		if (batch.no_memory)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "the page cache of %zu files", n);
		if (result < 0)
			return -1;
		*pages += batch.pages;
	}
	heat->sources |= source;
	return 0;
}

static struct cache_reader *open_reader(struct fsnap_error *lack)
{
	if (!getenv("FSNAP_NO_BPF")) /* for tests */
		return cache_reader_open(lack);
	fail(lack, FSNAP_E_PERMISSION, 0, "FSNAP_NO_BPF is set");
	return NULL;
}

static int ask_cache(struct heat *heat, pid_t root, bool thorough, struct fsnap_error *err)
{
	uint64_t pages = 0;
	if (!thorough && ask(heat, ask_mincore, NULL, HEAT_MINCORE, &pages, err) < 0)
		return -1;
	if (!thorough && pages * 4096 < HEAT_WORTH)
		return 0;
	struct cache_reader *reader = open_reader(&heat->lack);
	int result = reader ? ask(heat, ask_folios, reader, HEAT_FOLIOS, &pages, err) : 0;
	cache_reader_close(reader);
	if (reader)
		return result;
	if (!(heat->sources & HEAT_MINCORE) && ask(heat, ask_mincore, NULL, HEAT_MINCORE, &pages, err) < 0)
		return -1;
	return heat_tables_add(heat, root, err);
}

static void drop_descriptors(struct heat *heat)
{
	for (size_t i = 0; i < heat->n; i++) {
		close(heat->files[i]->fd);
		heat->files[i]->fd = -1;
	}
}

int heat_measure(struct heat *heat, pid_t root, bool thorough, struct fsnap_error *err)
{
	/* First, because it may know files that nobody has open any more. */
	int result = heat_watch_add(heat, root, err);
	if (result == 0)
		result = ask_cache(heat, root, thorough, err);
	drop_descriptors(heat);
	for (size_t i = 0; result == 0 && i < heat->n; i++)
		if (heat_runs_settle(heat->files[i]) < 0)
			result = fail(err, FSNAP_E_NOMEM, ENOMEM, "heat of %s",
				      heat->files[i]->image.identity.path);
	return result;
}
