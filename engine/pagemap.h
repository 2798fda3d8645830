/*
 * pagemap.h - what the kernel says of page tables: entries of /proc/PID/pagemap, and PAGEMAP_SCAN
 * (Linux 6.7; Documentation/admin-guide/mm/pagemap.rst).  Debian 12's headers lack the latter.
 */
#ifndef ENGINE_PAGEMAP_H
#define ENGINE_PAGEMAP_H

#include <stdint.h>
#include <sys/ioctl.h>

struct scan_region {
	uint64_t start, end, categories;
};

struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN _IOWR('f', 16, struct scan_argument)

/* scan_argument.flags */
#define SCAN_PROTECT (1ull << 0)	/* PM_SCAN_WP_MATCHING: pages that match are watched again */
#define SCAN_CHECK_ASYNC (1ull << 1)	/* PM_SCAN_CHECK_WPASYNC: EPERM where a mapping is not watched */

/* Categories. */
#define IS_WATCHED (1ull << 0) /* PAGE_IS_WPALLOWED: the mapping is registered with a userfaultfd such as track.h's */
#define IS_WRITTEN (1ull << 1)
#define IS_FILE (1ull << 2)
#define IS_PRESENT (1ull << 3)
#define IS_SWAPPED (1ull << 4)
#define IS_ZERO (1ull << 5)
#define IS_HUGE (1ull << 6)

#define REGIONS 512 /* a good number to ask for at once */

/* Bits of an entry. */
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_FILE (1ull << 61)
#define ENTRY_GUARD (1ull << 58) /* Linux 6.15 */
#define ENTRY_PROTECTED (1ull << 57) /* PM_UFFD_WP */
#define ENTRY_EXCLUSIVE (1ull << 56)
#define ENTRY_PFN ((1ull << 55) - 1)

#endif
