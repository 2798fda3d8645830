/*
 * warm_pace.h - how fast warm.c may read: what it gives way to.
 *
 * Two things are looked at, fifty times a second: how much the tree has had from the disk (/proc/PID/io), and how
 * much has come into the files of our list that we did not bring (cachestat(2)). If the tree reads, and it is not
 * that, it wants something else than we do: then we take little beside it. If it is that, we are its read-ahead.
 */
#ifndef RESTORER_WARM_PACE_H
#define RESTORER_WARM_PACE_H

#include "restorer/warm.h"

#define WARM_PAGE 4096u
#define WARM_FILES 256u /* that are looked at; reading of others counts as something else */

struct warm_pace {
	const struct warm_order *order;
	int files[WARM_FILES];
	size_t n_files;
	uint64_t brought;   /* pages that we have asked for */
	int64_t others;	    /* pages of these files that are there and not by us: the most so far */
	uint64_t looked_us; /* when that was */
	uint64_t look_us;   /* until the next time: long where looking takes long */

	bool met;		    /* the tree was there once */
	bool ended;		    /* ... and is no more */
	uint64_t bytes;		    /* it had from the disk when we looked last */
	uint64_t counted;	    /* ... when both things were looked at */
	uint64_t read_us;	    /* when it last had some */
	double tree, list, seconds; /* bytes it read, bytes of the list others brought, in a recent time */
	bool reads;	     /* from the disk */
	bool careful, yields; /* ... not our list: a little, more than that */
	double ramp;	     /* bytes a second: slowly back to full speed after giving way; 0: there */
	uint64_t allowed_us; /* nothing more is begun before */
};

void warm_pace_begin(struct warm_pace *pace, const struct warm_order *order, uint64_t now);
void warm_pace_look(struct warm_pace *pace, uint64_t now);

/* So many pages, which are not there yet, are about to be read: when may the next begin? */
void warm_pace_next(struct warm_pace *pace, uint64_t now, uint64_t pages, uint64_t bytes);

/* One read at a time: what is queued cannot be called back. */
bool warm_pace_slow(const struct warm_pace *pace, uint64_t now);

/* cachestat(2), Linux 6.5: pages of a range that are in the page cache; 0 where the kernel cannot say. */
uint64_t warm_pages_present(int fd, uint64_t offset, uint64_t bytes);

/* The number behind `key` in a file, -1 where there is none. */
int64_t warm_number_in(const char *path, const char *key);

#endif
