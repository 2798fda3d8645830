/*
 * warm.h - brings stretches of files into the page cache, without taking the disk away from others.
 *
 * Reads go through one io_uring, in the order given, some at a time. Whoever wants pages now comes first:
 * as long as the tree reads from the disk what is not on our list, we take a thirtieth of what it takes
 * (warm_pace.h). If it reads what is on the list, we are its read-ahead, and go as fast as the disk does.
 */
#ifndef RESTORER_WARM_H
#define RESTORER_WARM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define WARM_PIDS 64

struct warm_stretch {
	int fd;
	uint64_t offset, bytes; /* whole pages */
};

struct warm_order {
	const struct warm_stretch *stretches;
	size_t n;
	uint64_t rate;	  /* bytes a second; 0: as fast as is fair */
	uint64_t ceiling; /* bytes that may be read in all; 0: until memory becomes scarce */
	pid_t tree[WARM_PIDS]; /* whose reading comes first; it is also over when the first has ended */
	size_t n_tree;
	/* NULL, or called now and then: "prefetching", bytes dealt with, bytes in all. */
	void (*tell)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *tell_arg;
};

/* May lie in memory shared with others, who only read it, but for `stop` and `pid`. */
struct warm_progress {
	uint64_t total;	   /* bytes of all stretches */
	uint64_t read;	   /* brought in */
	uint64_t present;  /* were there already */
	uint64_t failed;   /* could not be read */
	uint64_t us;	   /* time taken so far */
	uint32_t yielded;  /* how often it held back for the tree */
	uint32_t stop;	   /* anybody: 1 = no more */
	uint32_t done;
	uint32_t scarce;   /* 1: ended because memory became scarce, or at the ceiling */
};

/* Is all of it in the page cache, but for so many pages? No, where the kernel cannot say (cachestat(2), Linux 6.5). */
bool warm_present(const struct warm_stretch *stretch, uint64_t but);

/* Calls no allocator and no stdio: it may run in the child of a process with threads. */
void warm_run(const struct warm_order *order, struct warm_progress *progress);

#endif
