#include "engine/kinds/unix_job.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/errand.h"
#include "engine/kinds/values.h"

static int compare_makers(const image_maker *a, const image_maker *b)
{
	if (a->pid != b->pid)
		return a->pid < b->pid ? -1 : 1;
	if (a->uid != b->uid)
		return a->uid < b->uid ? -1 : 1;
	if (a->gid != b->gid)
		return a->gid < b->gid ? -1 : 1;
	if (a->groups.groups_len != b->groups.groups_len)
		return a->groups.groups_len < b->groups.groups_len ? -1 : 1;
	return a->groups.groups_len ? memcmp(a->groups.groups_val, b->groups.groups_val,
					     a->groups.groups_len * sizeof(unsigned)) : 0;
}

int unix_job_by_first(const void *a, const void *b)
{
	const struct job *left = a, *right = b;
	if (!left->name.length != !right->name.length)
		return left->name.length ? 1 : -1;
	return compare_makers(left->first, right->first);
}

int unix_job_by_name(const void *a, const void *b)
{
	const struct job *left = a, *right = b;
	if (left->type != right->type)
		return left->type < right->type ? -1 : 1;
	if (left->name.length != right->name.length)
		return left->name.length < right->name.length ? -1 : 1;
	return memcmp(left->name.bytes, right->name.bytes, left->name.length);
}

int unix_job_by_second(const void *a, const void *b)
{
	return compare_makers(((const struct job *)a)->second, ((const struct job *)b)->second);
}

static void note_maker(struct restore *restore, const image_maker *who)
{
	restore_note(restore, "SO_PEERCRED of Unix sockets that process %d made tells another number", who->pid);
}

int unix_jobs_run_as(struct restore *restore, const image_maker *who, int root, void (*work)(void *),
		  struct batch *batch, struct fsnap_error *err)
{
	struct errand errand = {.who = who, .root = root, .arg = batch};
	*(who ? &errand.work_as : &errand.work) = work;
	int result = errand_run(&errand);
	/* What this user may not take on is made in our own name. */
	if (result < 0 && errno == EPERM && who) {
		errand.who = NULL;
		errand.work = work;
		result = errand_run(&errand) < 0 ? -1 : 1;
	}
	if (result < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "making Unix connections in the name of process %d",
			    who ? who->pid : 0);
	if (result > 0 && who && who->pid)
		note_maker(restore, who);
	for (size_t i = 0; i < batch->n; i++) {
		if (!batch->jobs[i].sys)
			continue;
		errno = batch->jobs[i].sys;
		return unix_failed(unix_job_someone(&batch->jobs[i])->file, err, "making a Unix connection");
	}
	return 0;
}

/* The descriptors of a run are all open here at once, whatever the limit is. */
#define RUN_MOST 64

int unix_jobs_for_runs(struct restore *restore, struct unix_bench *bench, struct job *jobs, size_t n,
		    int (*order)(const void *, const void *),
		    int (*each)(struct restore *, struct unix_bench *, struct batch *, struct fsnap_error *),
		    struct fsnap_error *err)
{
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && end - i < RUN_MOST && order(&jobs[i], &jobs[end]) == 0; end++)
			;
		struct batch batch = {.jobs = &jobs[i], .n = end - i};
		if (each(restore, bench, &batch, err) < 0)
			return -1;
	}
	return 0;
}

void unix_jobs_give(struct restore *restore, struct unix_bench *bench, struct unix_end *end, int fd)
{
	if (end->file == bench->making)
		bench->made = fd;
	else
		restore_give(restore, end->file->id, fd);
}

void unix_jobs_drop(struct job *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (int j = 0; j < 2; j++)
			if (jobs[i].fds[j] >= 0)
				close(jobs[i].fds[j]);
}
