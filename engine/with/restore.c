/*
 * restore.c - directories put back before the tree is made.
 *
 * What differs is made beside, in a directory of its own at the top of the tree (.fsnap-ID), and exchanged with what
 * is there by renames, of which each can be taken back: a restore that fails leaves all as it was. Files that are as
 * they were are not touched, so to put a database back costs what the last test has written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/restore.h"
#include "engine/remap.h"
#include "engine/with/with.h"
#include "store/scope.h"

#define STAGE ".fsnap-"

/* What happens to one path; each step that was done is undone in the opposite order. */
struct change {
	const struct with_entry *saved, *there; /* of one path; NULL: it is not in that tree */
	char away[24], fresh[24];		/* their names in the stage; "": none */
	bool moved, placed;
};

struct with_target {
	char path[4096];
	struct with_copier copier; /* from the saved tree into this one */
	struct with_list saved, there;
	struct change *changes; /* by path */
	size_t n;
	bool made; /* the directory was not there */
	char stage_name[64];
	int stage;
};

struct with_restore {
	image_with record;
	int files;
	struct remap remap;
	struct with_target *targets;
	size_t n;
};

const char **with_maps(const char *const *map, const char *const *with)
{
	size_t n = 0, m = 0;

	while (map && map[n])
		n++;
	while (with && with[m])
		m++;
	const char **words = calloc(n + m + 1, sizeof(*words));
	for (size_t i = 0; words && i < n; i++)
		words[i] = map[i];
	for (size_t i = 0; words && i < m; i++) {
		bool twice = false;
		for (size_t j = 0; j < n; j++)
			twice |= strcmp(words[j], with[i]) == 0;
		if (!twice)
			words[n++] = with[i];
	}
	return words;
}

/* --- what is to be done ------------------------------------------------------------------- */

static bool is_mapped_to_write(const struct restore *restore, const char *tree, const char *path)
{
	size_t length = strlen(tree);

	for (size_t i = 0; i < restore->model.n_mapped; i++) {
		const image_mapped *mapped = &restore->model.mapped[i];
		const char *name = mapped->identity.path;
		if (mapped->writable && !strncmp(name, tree, length) && name[length] == '/' &&
		    !strcmp(name + length + 1, path))
			return true;
	}
	return false;
}

/* Several links to one file are right if they are links to one file here, too. */
static bool is_linked_alike(struct with_target *target, const struct with_pair *pair, struct index *groups)
{
	const struct stat *saved = &pair->left->stat;
	size_t first;

	if (saved->st_nlink < 2 || S_ISDIR(saved->st_mode))
		return pair->right->stat.st_nlink < 2 || S_ISDIR(saved->st_mode);
	first = index_find(groups, saved->st_dev, saved->st_ino);
	if (first == INDEX_NONE) {
		index_add(groups, saved->st_dev, saved->st_ino, (size_t)(pair->right - target->there.entries), NULL);
		return pair->right->stat.st_nlink == saved->st_nlink;
	}
	return target->there.entries[first].stat.st_ino == pair->right->stat.st_ino;
}

static bool is_alike(const struct restore *restore, const char *tree, struct with_target *target,
		     const struct with_pair *pair, struct index *groups)
{
	bool mapped = S_ISREG(pair->left->stat.st_mode) && is_mapped_to_write(restore, tree, pair->left->path);

	return with_alike(target->copier.from, pair->left, target->copier.to, pair->right, mapped) &&
	       is_linked_alike(target, pair, groups);
}

/* One link of a group is made anew: so are all, or they would be two files. */
static void widen_groups(struct with_target *target, bool *alike, const struct index *changed)
{
	for (size_t i = 0; i < target->saved.n; i++) {
		const struct stat *stat = &target->saved.entries[i].stat;
		if (stat->st_nlink > 1 && !S_ISDIR(stat->st_mode) &&
		    index_find(changed, stat->st_dev, stat->st_ino) != INDEX_NONE)
			alike[i] = false;
	}
}

static bool *compare(const struct restore *restore, const char *tree, struct with_target *target)
{
	struct index groups = { 0 }, changed = { 0 };
	struct with_pair pair;
	bool *alike = calloc(target->saved.n + 1, sizeof(*alike));

	for (size_t at[2] = { 0 }; alike && with_next_pair(&target->saved, &target->there, at, &pair);) {
		if (!pair.left)
			continue;
		const struct stat *stat = &pair.left->stat;
		alike[at[0] - 1] = pair.right && is_alike(restore, tree, target, &pair, &groups);
		if (!alike[at[0] - 1] && stat->st_nlink > 1 && !S_ISDIR(stat->st_mode) &&
		    index_find(&changed, stat->st_dev, stat->st_ino) == INDEX_NONE)
			index_add(&changed, stat->st_dev, stat->st_ino, 0, NULL);
	}
	if (alike)
		widen_groups(target, alike, &changed);
	index_free(&groups);
	index_free(&changed);
	return alike;
}

static bool is_directory(const struct with_entry *entry)
{
	return entry && S_ISDIR(entry->stat.st_mode);
}

/* What a program that ended has left behind: sockets are not saved, and are nobody's loss. */
static bool is_socket(const struct with_entry *entry)
{
	return entry && S_ISSOCK(entry->stat.st_mode);
}

static int plan(const struct restore *restore, const char *tree, struct with_target *target, struct fsnap_error *err)
{
	cleanup_free bool *alike = compare(restore, tree, target);
	struct with_pair pair;

	target->changes = calloc(target->saved.n + target->there.n + 1, sizeof(*target->changes));
	if (!alike || !target->changes)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--with");
	for (size_t at[2] = { 0 }; with_next_pair(&target->saved, &target->there, at, &pair);) {
		if (pair.left && alike[at[0] - 1])
			continue;
		/* Directories whose attributes differ stay where they are. */
		if (is_directory(pair.left) && is_directory(pair.right))
			continue;
		struct change *change = &target->changes[target->n];
		*change = (struct change){ .saved = pair.left, .there = pair.right };
		if (pair.right)
			snprintf(change->away, sizeof(change->away), "o%zu", target->n);
		if (pair.left && !is_directory(pair.left))
			snprintf(change->fresh, sizeof(change->fresh), "n%zu", target->n);
		target->n++;
	}
	return 0;
}

static int refuse_others(const struct restore *restore, const struct with_target *target, struct fsnap_error *err)
{
	size_t differ = 0;
	const char *first = NULL;

	for (size_t i = 0; i < target->n; i++)
		if (!is_socket(target->changes[i].there)) {
			const struct change *change = &target->changes[i];
			first = first ? first : (change->saved ? change->saved : change->there)->path;
			differ++;
		}
	if (!differ || !target->there.n || restore->options->with_overwrite)
		return 0;
	fail(err, FSNAP_E_FILE_CHANGED, 0, "%s is not as it was saved: %zu entries differ (%s)", target->path, differ,
	     first);
	return error_hint(err, "--with-overwrite puts the saved one back, and what is there is lost; --with OLD=NEW "
			       "puts it elsewhere");
}

/* --- doing it -------------------------------------------------------------------------------- */

static int make_stage(struct with_target *target, const char *id, struct fsnap_error *err)
{
	snprintf(target->stage_name, sizeof(target->stage_name), STAGE "%.40s", id);
	store_remove_tree(target->copier.to, target->stage_name); /* of a restore that was killed */
	if (mkdirat(target->copier.to, target->stage_name, 0700) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "%s: making a directory in it", target->path);
	target->stage = with_open(target->copier.to, target->stage_name, O_RDONLY | O_DIRECTORY, 0);
	return target->stage < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "%s", target->path) : 0;
}

static int make_fresh(struct with_target *target, struct fsnap_error *err)
{
	char path[128];

	for (size_t i = 0; i < target->n; i++) {
		struct change *change = &target->changes[i];
		if (!change->fresh[0])
			continue;
		snprintf(path, sizeof(path), "%s/%s", target->stage_name, change->fresh);
		int result = with_copy(&target->copier, change->saved->path, path, &change->saved->stat, err);
		if (result > 0)
			fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "the image has lost %s", change->saved->path);
		if (result != 0)
			return -1;
	}
	return 0;
}

/* Below a directory that was moved away as a whole. */
static bool goes_with(const struct change *moved, const struct change *change)
{
	size_t length = moved ? strlen(moved->there->path) : 0;

	return moved && !strncmp(moved->there->path, change->there->path, length) && change->there->path[length] == '/';
}

static int exchange(struct with_target *target, struct change *change)
{
	const char *name;
	cleanup_fd int dir = with_parent(target->copier.to, (change->saved ? change->saved : change->there)->path, &name);

	if (dir < 0)
		return -1;
	if (change->away[0]) {
		if (renameat(dir, name, target->stage, change->away) < 0)
			return -1;
		change->moved = true;
	}
	if (is_directory(change->saved) ? mkdirat(dir, name, 0700) < 0 :
	    change->fresh[0] && renameat(target->stage, change->fresh, dir, name) < 0)
		return -1;
	change->placed = change->saved != NULL;
	return 0;
}

static int exchange_all(struct with_target *target, struct fsnap_error *err)
{
	const struct change *moved = NULL;

	for (size_t i = 0; i < target->n; i++) {
		struct change *change = &target->changes[i];
		if (is_socket(change->saved))
			continue;
		if (change->there && goes_with(moved, change)) {
			change->away[0] = '\0';
			if (!change->saved)
				continue;
		}
		if (exchange(target, change) < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "%s/%s", target->path,
				    (change->saved ? change->saved : change->there)->path);
		if (change->moved && is_directory(change->there))
			moved = change;
	}
	return 0;
}

static int open_target(struct with_target *target, const char *path, struct fsnap_error *err)
{
	snprintf(target->path, sizeof(target->path), "%s", path);
	target->made = mkdir(path, 0700) == 0;
	target->copier.to = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (target->copier.to >= 0)
		return 0;
	fail(err, FSNAP_E_FILE_MISSING, errno, "%s, where the image has its files from", path);
	return error_hint(err, "make the directory above it, or say with --with %s=NEW where they shall be", path);
}

static int put_back(struct restore *restore, struct with_target *target, const image_with_tree *tree, size_t number,
		    struct fsnap_error *err)
{
	struct with_restore *with = restore->with;
	char name[24];

	target->stage = target->copier.from = target->copier.to = -1;
	cleanup_free char *now = remap_path(&with->remap, tree->path, err);
	if (error_is_set(err) || policy_check_path(&restore->policy, now ? now : tree->path, err) < 0 ||
	    open_target(target, now ? now : tree->path, err) < 0)
		return -1;
	snprintf(name, sizeof(name), "%zu", number);
	target->copier.from = with_open(with->files, name, O_RDONLY | O_DIRECTORY, 0);
	if (target->copier.from < 0)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, errno, "the image has lost the files of %s", tree->path);
	if (with_list_read(target->copier.from, NULL, &target->saved, err) < 0 ||
	    with_list_read(target->copier.to, STAGE, &target->there, err) < 0 ||
	    plan(restore, tree->path, target, err) < 0 || refuse_others(restore, target, err) < 0)
		return -1;
	if (target->n && (make_stage(target, with->record.id, err) < 0 || make_fresh(target, err) < 0 ||
			  exchange_all(target, err) < 0))
		return -1;
	/* What a directory looks like is touched last: entries made in it change its times. */
	for (size_t i = target->saved.n; i-- > 0;) {
		const struct with_entry *entry = &target->saved.entries[i];
		if (is_directory(entry) &&
		    with_directory(&target->copier, entry->path, entry->path, &entry->stat, err) < 0)
			return -1;
	}
	return 0;
}

int with_restore(struct restore *restore, struct fsnap_error *err)
{
	if (!image_count(restore->image, IMAGE_WITH))
		return 0;
	struct with_restore *with = restore->with = calloc(1, sizeof(*with));
	if (!with)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--with");
	with->files = -1;
	if (image_get(restore->image, IMAGE_WITH, 0, (xdrproc_t)xdr_image_with, &with->record, err) < 0 ||
	    remap_open(&with->remap, restore->options->with, err) < 0)
		return -1;
	size_t n = with->record.trees.trees_len;
	with->targets = calloc(n + 1, sizeof(*with->targets));
	with->files = image_trees(restore->store, restore->image, with->record.id, err);
	if (!with->targets || with->files < 0)
		return with->targets ? -1 : fail(err, FSNAP_E_NOMEM, ENOMEM, "--with");
	while (with->n < n) {
		size_t i = with->n++;
		if (put_back(restore, &with->targets[i], &with->record.trees.trees_val[i], i, err) < 0)
			return -1;
	}
	return 0;
}

/* --- afterwards -------------------------------------------------------------------------------- */

static void free_all(struct restore *restore)
{
	struct with_restore *with = restore->with;

	for (size_t i = 0; i < with->n; i++) {
		struct with_target *target = &with->targets[i];
		scope_close(&target->stage);
		scope_close(&target->copier.from);
		scope_close(&target->copier.to);
		with_copier_free(&target->copier);
		with_list_free(&target->saved);
		with_list_free(&target->there);
		free(target->changes);
	}
	free(with->targets);
	remap_close(&with->remap);
	scope_close(&with->files);
	xdr_free((xdrproc_t)xdr_image_with, (char *)&with->record);
	free(with);
	restore->with = NULL;
}

static void set_root(struct with_target *target)
{
	struct stat stat;

	if (fstat(target->copier.from, &stat) == 0)
		with_directory(&target->copier, ".", ".", &stat, NULL);
}

void with_keep(struct restore *restore)
{
	for (size_t i = 0; restore->with && i < restore->with->n; i++) {
		struct with_target *target = &restore->with->targets[i];
		if (target->stage >= 0)
			store_remove_tree(target->copier.to, target->stage_name);
		set_root(target);
	}
	if (restore->with)
		free_all(restore);
}

static void take_back(struct with_target *target, struct change *change)
{
	const char *name;
	cleanup_fd int dir = with_parent(target->copier.to, (change->saved ? change->saved : change->there)->path, &name);

	if (dir >= 0 && change->placed)
		unlinkat(dir, name, is_directory(change->saved) ? AT_REMOVEDIR : 0);
	if (dir >= 0 && change->moved)
		renameat(target->stage, change->away, dir, name);
}

static void undo(struct with_target *target)
{
	bool changed = target->stage >= 0;

	for (size_t i = target->n; i-- > 0;)
		if (target->changes[i].placed || target->changes[i].moved)
			take_back(target, &target->changes[i]);
	if (changed)
		store_remove_tree(target->copier.to, target->stage_name);
	for (size_t i = target->there.n; changed && i-- > 0;) {
		const struct with_entry *entry = &target->there.entries[i];
		cleanup_fd int dir = is_directory(entry) ?
					     with_open(target->copier.to, entry->path, O_RDONLY | O_DIRECTORY, 0) : -1;
		struct timespec times[2] = { entry->stat.st_atim, entry->stat.st_mtim };
		if (dir < 0)
			continue;
		if (fchown(dir, entry->stat.st_uid, entry->stat.st_gid) == 0)
			fchmod(dir, entry->stat.st_mode & 07777);
		futimens(dir, times);
	}
	if (target->made)
		rmdir(target->path);
}

void with_undo(struct restore *restore)
{
	for (size_t i = restore->with ? restore->with->n : 0; i-- > 0;)
		undo(&restore->with->targets[i]);
	if (restore->with)
		free_all(restore);
}
