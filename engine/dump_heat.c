/*
 * dump_heat.c - what the tree's files had in the page cache goes into the image as a hint. Done while the
 * tree runs again; what fails here costs the hint and not the image.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/heat/heat.h"
#include "engine/kinds/locks.h"
#include "store/scope.h"

static void add(struct heat *heat, const image_identity *identity, bool mapped)
{
	struct heat_file *file = heat_add(heat, identity, true);
	if (!file)
		return;
	file->image.open = 1;
	file->mapped |= mapped;
}

static void add_files(struct dump *dump, struct heat *heat)
{
	image_file *file;
	const image_file_regular *regular;
	for (size_t i = 0; (regular = dump_file_state(dump, "regular", i, &file)); i++)
		if (locks_write_lease(file))
			leases_add(&heat->leases, regular->identity.ino);
	for (size_t i = 0; i < dump->n_mapped; i++)
		add(heat, &dump->mapped[i].image.identity, true);
	for (size_t i = 0; (regular = dump_file_state(dump, "regular", i, &file)); i++)
		add(heat, &regular->identity, false);
}

static int put_hints(struct dump *dump, struct heat *heat, struct fsnap_error *err)
{
	for (size_t i = 0; i < heat->n; i++) {
		image_heat *image = &heat->files[i]->image;
		if (image->runs.runs_len == 0)
			continue;
		if (image_writer_put_hint(dump->writer, IMAGE_HEAT, "heat", (xdrproc_t)xdr_image_heat, image,
					  err) < 0)
			return -1;
		dump->report->heat_files++;
		dump->report->heat_bytes += heat_pages(image, 1) * STORE_PAGE;
		dump->report->hot_bytes += heat_pages(image, 3) * STORE_PAGE;
	}
	dump->report->heat_sources = heat->sources;
	return 0;
}

void heat_save(struct dump *dump)
{
	struct heat heat = { 0 };
	struct fsnap_error why = { 0 };
	if (dump->options->heat == FSNAP_HEAT_NEVER)
		return;
	add_files(dump, &heat);
	if (heat_measure(&heat, dump->options->pid, dump->options->heat == FSNAP_HEAT_ALWAYS, &why) < 0 ||
	    put_hints(dump, &heat, &why) < 0)
		dump_note(dump, "what of its files was in the page cache was not found out: %s", why.message);
	else if (heat.lack.code && dump->options->heat == FSNAP_HEAT_ALWAYS)
		dump_note(dump, "page-cache heat comes from mincore, which tells what is cached and not how warm: %s",
			  heat.lack.message);
	heat_free(&heat);
}

/* --- dirty pages ----------------------------------------------------------------------- */

static bool is_written(const image_file *file)
{
	return (file->flags & O_ACCMODE) != O_RDONLY && !(file->flags & O_PATH);
}

static int sync_one(struct dump *dump, struct leases *leases, const image_identity *identity,
		    struct fsnap_error *err)
{
	struct stat stat;
	if (leases_hold(leases, identity->ino)) {
		dump_note(dump, leases->unknown ? "%s was not written back: whether there is a lease on it, which opening it would "
						  "break, could not be found out" :
						  "%s was not written back: opening it would break the lease on it",
			  identity->path);
		return 0;
	}
	cleanup_fd int fd = open(identity->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &stat) < 0 || stat.st_ino != identity->ino || stat.st_dev != identity->dev)
		return 0; /* its name leads elsewhere by now */
	return fsync(fd) < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "writing back %s", identity->path) : 0;
}

static int sync_all(struct dump *dump, struct leases *leases, struct fsnap_error *err)
{
	image_file *file;
	const image_file_regular *regular;
	for (size_t i = 0; i < dump->n_mapped; i++)
		if (dump->mapped[i].image.writable && !dump->mapped[i].image.identity.ghost &&
		    sync_one(dump, leases, &dump->mapped[i].image.identity, err) < 0)
			return -1;
	for (size_t i = 0; (regular = dump_file_state(dump, "regular", i, &file)); i++)
		if (is_written(file) && !regular->identity.ghost && S_ISREG(regular->identity.mode) &&
		    sync_one(dump, leases, &regular->identity, err) < 0)
			return -1;
	return 0;
}

int files_sync(struct dump *dump, struct fsnap_error *err)
{
	if (!dump->options->sync_files)
		return 0;
	struct leases leases = { 0 };
	int result = sync_all(dump, &leases, err);
	leases_free(&leases);
	return result;
}
