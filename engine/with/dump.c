/*
 * dump.c - directories copied with a dump.
 *
 * They are copied while the tree runs, and once more what changed meanwhile. In the freeze each file is only looked
 * at: by its inode, size and ctime, which no program can set (inode(7)), and what has changed is copied again. A
 * ctime that is not older than the clock's tick when the copy began does not tell; nor do those of files that the
 * tree maps to write (on tmpfs such writes leave no time stamp at all).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/laps.h"
#include "engine/with/with.h"
#include "store/scope.h"

#define TICK 20000000ll /* ns; CONFIG_HZ is 100 at least */
#define LONG_PASS 50000000ull

struct with_tree {
	char path[4096]; /* absolute */
	struct with_copier copier;
	struct with_list list; /* what has been copied */
};

struct with_dump {
	char id[STORE_FILES_ID];
	int files;
	struct with_tree *trees;
	size_t n;
};

/* --- one pass over a tree ----------------------------------------------------------------- */

static bool is_mapped_to_write(const struct dump *dump, const struct stat *stat)
{
	for (size_t i = 0; i < dump->n_mapped; i++) {
		const image_mapped *mapped = &dump->mapped[i].image;
		if (mapped->writable && mapped->identity.dev == stat->st_dev && mapped->identity.ino == stat->st_ino)
			return true;
	}
	return false;
}

static bool is_unchanged(const struct dump *dump, const struct with_entry *before, const struct with_entry *now)
{
	const struct stat *one = &before->stat, *two = &now->stat;

	if ((one->st_mode & S_IFMT) != (two->st_mode & S_IFMT))
		return false;
	if (S_ISDIR(one->st_mode))
		return true; /* what is in it is looked at by itself, its attributes are set last */
	return one->st_dev == two->st_dev && one->st_ino == two->st_ino && one->st_size == two->st_size &&
	       with_ns(one->st_ctim) == with_ns(two->st_ctim) && !before->doubtful &&
	       !(S_ISREG(two->st_mode) && is_mapped_to_write(dump, two));
}

/* From the end, so that directories are empty when they go. */
static void remove_old(const struct dump *dump, struct with_tree *tree, const struct with_list *now)
{
	size_t j = now->n;

	for (size_t i = tree->list.n; i-- > 0;) {
		const struct with_entry *old = &tree->list.entries[i];
		while (j > 0 && strcmp(now->entries[j - 1].path, old->path) > 0)
			j--;
		bool there = j > 0 && strcmp(now->entries[j - 1].path, old->path) == 0;
		const char *name;
		if (there && is_unchanged(dump, old, &now->entries[j - 1]))
			continue;
		cleanup_fd int dir = with_parent(tree->copier.to, old->path, &name);
		if (dir >= 0)
			unlinkat(dir, name, S_ISDIR(old->stat.st_mode) ? AT_REMOVEDIR : 0);
	}
}

static int copy_new(struct dump *dump, struct with_tree *tree, const struct with_list *now, struct fsnap_error *err)
{
	struct with_copier *copier = &tree->copier;
	struct with_pair pair;

	for (size_t at[2] = { 0 }; with_next_pair(&tree->list, now, at, &pair);) {
		if (!pair.right)
			continue;
		struct with_entry *entry = &now->entries[at[1] - 1];
		struct timespec begin;
		clock_gettime(CLOCK_REALTIME, &begin);
		if (pair.left && is_unchanged(dump, pair.left, pair.right)) {
			if (with_linked(copier, &entry->stat, entry->path, err) < 0)
				return -1;
			continue;
		}
		entry->doubtful = with_ns(entry->stat.st_ctim) > with_ns(begin) - TICK;
		if (with_copy(copier, entry->path, entry->path, &entry->stat, err) < 0)
			return -1;
	}
	return 0;
}

static int pass(struct dump *dump, struct with_tree *tree, struct fsnap_error *err)
{
	struct with_list now;
	struct with_copier *copier = &tree->copier, before = *copier;

	/* Links and what is told of are those of the last pass. */
	with_copier_free(copier);
	*copier = (struct with_copier){ .from = before.from, .to = before.to };
	int result = with_list_read(copier->from, NULL, &now, err);
	if (result == 0) {
		remove_old(dump, tree, &now);
		result = copy_new(dump, tree, &now, err);
	}
	with_list_free(&tree->list);
	tree->list = now;
	return result < 0 ? error_context(err, "--with %s", tree->path) : 0;
}

/* --- the steps ----------------------------------------------------------------------------- */

static int open_tree(struct dump *dump, struct with_tree *tree, const char *word, size_t number,
		     struct fsnap_error *err)
{
	char link[64], name[24];
	struct with_dump *with = dump->with;

	tree->copier.to = -1;
	tree->copier.from = open(word, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tree->copier.from < 0) {
		int code = error_of_name(errno);
		fail(err, code, errno, "--with %s", word);
		return code == FSNAP_E_USAGE ? error_hint(err, "it takes a directory that is there, and that you may read") : -1;
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", tree->copier.from);
	ssize_t length = readlink(link, tree->path, sizeof(tree->path) - 1);
	if (length <= 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "--with %s: its path", word);
	tree->path[length] = '\0';
	size_t own = strlen(tree->path);
	if (strncmp(store_path(dump->store), tree->path, own) == 0 &&
	    strchr("/", store_path(dump->store)[own])) {
		fail(err, FSNAP_E_USAGE, 0, "--with %s: the store is in it", word);
		return error_hint(err, "keep images elsewhere: --store DIR");
	}
	snprintf(name, sizeof(name), "%zu", number);
	if (mkdirat(with->files, name, 0700) < 0 || (tree->copier.to = with_open(with->files, name, O_RDONLY, 0)) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "--with %s: its copy", word);
	return 0;
}

int with_begin(struct dump *dump, struct fsnap_error *err)
{
	size_t n = 0;

	while (dump->options->with && dump->options->with[n])
		n++;
	if (!n)
		return 0;
	struct with_dump *with = dump->with = calloc(1, sizeof(*with));
	if (!with || !(with->trees = calloc(n, sizeof(*with->trees))))
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--with");
	with->files = image_writer_trees(dump->writer, with->id, err);
	if (with->files < 0)
		return -1;
	while (with->n < n) {
		struct with_tree *tree = &with->trees[with->n];
		const char *word = dump->options->with[with->n];
		uint64_t begin = clock_ns(CLOCK_MONOTONIC);
		if (open_tree(dump, tree, word, with->n++, err) < 0 || pass(dump, tree, err) < 0)
			return -1;
		/* Whatever changed while that took its time need not wait for the freeze. */
		if (clock_ns(CLOCK_MONOTONIC) - begin > LONG_PASS && pass(dump, tree, err) < 0)
			return -1;
	}
	return 0;
}

int with_freeze(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; dump->with && i < dump->with->n; i++)
		if (pass(dump, &dump->with->trees[i], err) < 0)
			return -1;
	return 0;
}

static int finish(struct dump *dump, struct with_tree *tree, image_with_tree *record, struct fsnap_error *err)
{
	struct with_copier *copier = &tree->copier;
	const char *socket = NULL;
	unsigned sockets = 0;

	for (size_t i = tree->list.n; i-- > 0;) {
		const struct with_entry *entry = &tree->list.entries[i];
		if (S_ISSOCK(entry->stat.st_mode) && sockets++ == 0)
			socket = entry->path;
		if (S_ISREG(entry->stat.st_mode))
			record->bytes += (uint64_t)entry->stat.st_size;
		if (S_ISDIR(entry->stat.st_mode) &&
		    with_directory(copier, entry->path, entry->path, &entry->stat, err) < 0)
			return -1;
	}
	struct stat stat;
	if (fstat(copier->from, &stat) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "--with %s", tree->path);
	if (with_directory(copier, ".", ".", &stat, err) < 0)
		return -1;
	record->path = tree->path;
	record->entries = (u_int)tree->list.n;
	if (sockets)
		dump_note(dump, "--with %s: %u socket%s left out, which whoever listens makes (%s)", tree->path, sockets,
			  sockets == 1 ? " was" : "s were", socket);
	if (copier->foreign)
		dump_note(dump, "--with %s: the owner of files of others is not kept, as only root could put it back",
			  tree->path);
	return 0;
}

int with_put(struct dump *dump, struct fsnap_error *err)
{
	struct with_dump *with = dump->with;
	int result = 0;

	if (!with)
		return 0;
	cleanup_free image_with_tree *trees = calloc(with->n, sizeof(*trees));
	if (!trees)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--with");
	image_with record = { .id = with->id, .trees = { (u_int)with->n, trees } };
	for (size_t i = 0; i < with->n && result == 0; i++)
		result = finish(dump, &with->trees[i], &trees[i], err);
	for (size_t i = 0; i < with->n; i++)
		dump->report->with_bytes += trees[i].bytes;
	return result < 0 ? -1 : image_writer_put(dump->writer, IMAGE_WITH, true, "with",
						  (xdrproc_t)xdr_image_with, &record, err);
}

void with_forget(struct dump *dump)
{
	struct with_dump *with = dump->with;

	for (size_t i = 0; with && i < with->n; i++) {
		scope_close(&with->trees[i].copier.from);
		scope_close(&with->trees[i].copier.to);
		with_copier_free(&with->trees[i].copier);
		with_list_free(&with->trees[i].list);
	}
	if (with) {
		scope_close(&with->files);
		free(with->trees);
	}
	free(with);
}
