/*
 * unix_job.h - what unix_connect.c and unix_listen.c make, and in whose name.
 */
#ifndef ENGINE_KINDS_UNIX_JOB_H
#define ENGINE_KINDS_UNIX_JOB_H

#include "engine/kinds/unix_parts.h"

/* A connection or a listener to be made. */
struct job {
	struct unix_end *client, *server; /* NULL: it had been closed. A pair has no roles, a listener only itself */
	const image_maker *first;	  /* who listened, or made the pair */
	const image_maker *second;	  /* who connected */
	int type;
	struct unix_address name; /* of the listener; empty: a pair */
	int listener;
	int fds[2]; /* client, server */
	int sys;    /* errno of what failed, 0: nothing */
};

/* What one errand does. */
struct batch {
	struct job *jobs;
	size_t n;
};

/* For qsort(3): by who listened (pairs first), by the listener's name, by who connected. */
int unix_job_by_first(const void *a, const void *b);
int unix_job_by_name(const void *a, const void *b);
int unix_job_by_second(const void *a, const void *b);

/* Runs work(batch) in the name of `who` (NULL: our own), with `root` as root directory (-1: ours). It
 * fails if one of the jobs has. */
int unix_jobs_run_as(struct restore *restore, const image_maker *who, int root, void (*work)(void *),
		     struct batch *batch, struct fsnap_error *err);

/* Calls `each` for every run of jobs that `order` finds equal. */
int unix_jobs_for_runs(struct restore *restore, struct unix_bench *bench, struct job *jobs, size_t n,
		       int (*order)(const void *, const void *),
		       int (*each)(struct restore *, struct unix_bench *, struct batch *, struct fsnap_error *),
		       struct fsnap_error *err);

/* The end has become `fd`. */
void unix_jobs_give(struct restore *restore, struct unix_bench *bench, struct unix_end *end, int fd);

/* Closes what nobody was given. */
void unix_jobs_drop(struct job *jobs, size_t n);

/* unix_listen.c: makes every listener of the image; `jobs` has room for all sockets. */
int unix_listen_all(struct restore *restore, struct unix_bench *bench, struct job *jobs, struct fsnap_error *err);

static inline struct unix_end *unix_job_someone(const struct job *job)
{
	return job->client ? job->client : job->server;
}

#endif
