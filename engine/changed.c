/*
 * Without a word from the user, code refuses and data warns. Code and read-only
 * data of another build behind pointers and registers of this one is a crash at
 * best, and no program expects it. Data files change all the time, the program's
 * own logs while the dump is not yet over; a program that reads a file expects
 * others to write it. A build ID, where both have one, decides instead of the time
 * stamp: the same package installed anew, or on another machine, is the same code.
 */
#include "engine/changed.h"

#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#include "engine/build_id.h"
#include "engine/restore.h"

/* Files the kernel writes at the moment they are read have no state to compare. */
static bool is_generated(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 &&
	       (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC || fs.f_type == CGROUP2_SUPER_MAGIC ||
		fs.f_type == CGROUP_SUPER_MAGIC || fs.f_type == DEBUGFS_MAGIC || fs.f_type == TRACEFS_MAGIC);
}

static bool is_same(const image_identity *identity, const struct stat *now)
{
	int64_t mtime = now->st_mtim.tv_sec * 1000000000ll + now->st_mtim.tv_nsec;
	return (uint64_t)now->st_size == identity->size && mtime == identity->mtime_ns;
}

static void describe(char *text, size_t size, const image_identity *identity, const struct stat *now)
{
	if ((uint64_t)now->st_size == identity->size)
		snprintf(text, size, "%s was changed since the dump (%lld bytes, as it was)", identity->path,
			 (long long)now->st_size);
	else
		snprintf(text, size, "%s was changed since the dump (%lld bytes, was %llu)", identity->path,
			 (long long)now->st_size, (unsigned long long)identity->size);
}

int changed_opened(struct restore *restore, const image_identity *identity, const struct stat *now, int fd,
		   struct fsnap_error *err)
{
	enum fsnap_changed choice = restore->options->changed;
	char text[IMAGE_NAME + 128];
	if (choice == FSNAP_CHANGED_ACCEPT || !S_ISREG(now->st_mode) || is_same(identity, now) ||
	    is_generated(fd))
		return 0;
	describe(text, sizeof(text), identity, now);
	if (choice != FSNAP_CHANGED_REFUSE) {
		restore_note(restore, "%s", text);
		return 0;
	}
	fail(err, FSNAP_E_FILE_CHANGED, 0, "%s", text);
	return error_hint(err, "put the old file back, say with --map where it is, or restore with --changed warn");
}

/* The first process that has mapped it, for people. */
static const image_process *mapper(const struct restore *restore, unsigned id)
{
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		const image_mm *mm = process->zombie ? NULL : model_mm(&restore->model, process->mm);
		for (u_int j = 0; mm && j < mm->vmas.vmas_len; j++)
			if (mm->vmas.vmas_val[j].kind == VMA_FILE && mm->vmas.vmas_val[j].object == id)
				return process;
	}
	return &restore->model.processes[0];
}

int changed_mapped(struct restore *restore, const image_mapped *mapped, int fd, struct fsnap_error *err)
{
	const image_identity *identity = &mapped->identity;
	enum fsnap_changed choice = restore->options->changed;
	unsigned char id[BUILD_ID_MAX];
	char text[IMAGE_NAME + 128];
	struct stat now;
	if (identity->ghost || choice == FSNAP_CHANGED_ACCEPT || !S_ISREG(identity->mode) ||
	    fstat(fd, &now) < 0)
		return 0;
	if (mapped->writable) /* shared, to be written: data, like any */
		return changed_opened(restore, identity, &now, fd, err);
	if (mapped->build_id.build_id_len == 0) {
		if (is_same(identity, &now))
			return 0;
		describe(text, sizeof(text), identity, &now);
	} else {
		size_t n = build_id_read(fd, id);
		if (n == mapped->build_id.build_id_len && memcmp(id, mapped->build_id.build_id_val, n) == 0)
			return 0;
		snprintf(text, sizeof(text), "%s is another build than it was (its build ID differs)",
			 identity->path);
	}
	if (choice == FSNAP_CHANGED_WARN) {
		restore_note(restore, "%s, and is mapped", text);
		return 0;
	}
	const image_process *process = mapper(restore, mapped->id);
	fail(err, FSNAP_E_FILE_CHANGED, 0, "process %d (%s): its mapped file %s", process->pid,
	     process->threads.threads_val[0].comm, text);
	return error_hint(err, "put the old file back, say with --map where it is, or, if the change is known to "
			       "be harmless, restore with --changed warn");
}
