/*
 * pager.h - brings the rest of a tree's memory when the tree runs already, then ends.
 *
 * A restore that streams leaves its address spaces mapped, but mostly empty, each under a userfaultfd. The *pager*
 * is a process of fsnap that serves them: a page that somebody waits for comes at once, the rest in
 * large pieces behind it. When an address space has all it is to have, its userfaultfd is closed, which
 * makes its mappings what they were; with the last one, the pager is gone.
 *
 * Never wrong memory. Were the last descriptor of a userfaultfd closed early, pages that have not arrived would
 * read as zeroes. So there is a second process, the *guardian*, which shares the pager's table of descriptors
 * (clone(2), CLONE_FILES): what one of them has, both have, at every instant. Each watches the other. If the
 * guardian dies, the pager makes another one. If the pager dies, or finds the image damaged, the tree is
 * killed, with a message, and descriptors are closed when its memory is gone.
 *
 *	pager.c    the loop: events, faults, blocks
 *	guest.c    what it does to an address space: pages placed, events understood
 *	block.c    blocks of the image on their way into memory
 *	guardian.c the other process; the end of a tree that cannot go on
 */
#ifndef RESTORER_PAGER_H
#define RESTORER_PAGER_H

#include <sys/types.h>

#include "restorer/memory.h"

#define PAGER_NAME "fsnap-pager" /* as /proc/PID/comm has it */

/* An address space, and the process it was made for. */
struct pager_space {
	int uffd, pidfd; /* the first is -1 where nothing is to come */
	pid_t pid;
	const struct page_run *runs; /* what is to come, by page */
	size_t n;
	const struct memory_range *huge; /* what of it is to be in huge pages, when it has come */
	size_t n_huge;
};

struct pager_progress;
struct record_entry;
struct pager_order {
	const struct image *image;
	struct image_decoder *decoder; /* NULL: all of it is stored as it is */
	struct pager_space *spaces;
	size_t n;
	struct pager_progress *progress;
	int ready;	   /* a pipe: a byte comes when pager and guardian are at work; it ends without, if they cannot be */
	const char *who;   /* as people call the tree */
	int tell;	   /* where a message about its end goes, besides the kernel's log; -1: nowhere */
	uint64_t began_ns; /* CLOCK_MONOTONIC, of the restore */
	const struct record_entry *played; /* pages that come first, in the order of the image */
	size_t n_played;
	uint64_t record_ns; /* so long, which pages are touched is recorded; 0: not at all */
	const char *record_path; /* where to */
};

/* In memory shared with the pager, which alone writes all of it but `released`. */
struct pager_progress {
	uint64_t pages;	      /* to come, in all */
	uint64_t streamed;    /* came */
	uint64_t zeroed;      /* had no content: waited for, and given as zeroes */
	uint64_t forgotten;   /* thrown away by the program before they came */
	uint64_t faults;      /* waited for */
	uint64_t resident_us; /* from the beginning of the restore to the last page */
	uint64_t recorded;    /* pages of the record that was written */
	uint32_t failed;      /* the tree was killed: message says why */
	uint32_t safe;	      /* all is there: nothing depends on the pager any more */
	uint32_t done;	      /* a futex */
	int32_t pager;	      /* its PID */
	uint32_t released;    /* the restore is done, or as good as: until then, only what is waited for is brought */
	char message[1024];
};

/* Is there what it takes? userfaultfd(2) that sees faults of the kernel, and tells of forks, moves and removals. */
bool pager_possible(struct fsnap_error *err);
/* Features a userfaultfd needs to have for the pager. */
uint64_t pager_features(void);

/* What the process of the pager does; never returns. arg: a struct pager_order. Of descriptors it needs the image's,
 * those of the spaces, `ready` and `tell`. */
void pager_run(void *arg);

#endif
