/*
 * tables.c - which pages of files are in page tables: PAGEMAP_SCAN (Linux 6.7). mincore(2) tells what is cached, not
 * how warm; a page that a process of the tree has mapped and touched (or that lay beside one) is needed sooner
 * than others. This is asked where BPF may not be.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "bpf/cache_shape.h"
#include "engine/heat/heat.h"
#include "engine/pagemap.h"
#include "engine/procfs.h"
#include "store/scope.h"

#define PAGE 4096u

/* By the numbers in maps, which are not those of stat(2) on some file systems: then by what stat(2) says. */
static struct heat_file *file_of(struct heat *heat, int proc, const struct procfs_map *map)
{
	char name[64];
	struct stat stat;
	struct heat_file *file = heat_find(heat, makedev(map->major, map->minor), map->inode);
	if (file)
		return file;
	snprintf(name, sizeof(name), "map_files/%lx-%lx", map->start, map->end);
	return fstatat(proc, name, &stat, 0) == 0 ? heat_find(heat, stat.st_dev, stat.st_ino) : NULL;
}

/* 1: this kernel cannot be asked. */
static int add_mapping(struct heat_file *file, int pagemap, const struct procfs_map *map, struct fsnap_error *err)
{
	struct scan_region regions[REGIONS];
	struct scan_argument argument = {
		.size = sizeof(argument),
		.start = map->start,
		.end = map->end,
		.vec = (uintptr_t)regions,
		.vec_len = REGIONS,
		.category_mask = IS_PRESENT | IS_FILE,
		.return_mask = IS_PRESENT | IS_FILE,
	};
	while (argument.start < map->end) {
		int n = ioctl(pagemap, SCAN, &argument);
		if (n < 0)
			return 1; /* the process has ended, or the kernel is older */
		for (int i = 0; i < n; i++) {
			uint64_t page = (regions[i].start - map->start + map->offset) / PAGE;
			if (heat_runs_add(file, page, (regions[i].end - regions[i].start) / PAGE, CACHE_WARM) < 0)
				return fail(err, FSNAP_E_NOMEM, ENOMEM, "what of files is mapped");
		}
		argument.start = argument.walk_end;
	}
	file->image.source |= HEAT_TABLES;
	return 0;
}

static int add_process(struct heat *heat, pid_t pid, struct fsnap_error *err)
{
	cleanup_fd int proc = procfs_open(pid, NULL);
	cleanup_fd int pagemap = proc >= 0 ? openat(proc, "pagemap", O_RDONLY | O_CLOEXEC) : -1;
	cleanup_free char *maps = pagemap >= 0 ? procfs_read(proc, "maps", NULL, NULL) : NULL;
	struct procfs_map map;
	for (char *cursor = maps; cursor && procfs_next_map(&cursor, &map);) {
		struct heat_file *file = map.inode ? file_of(heat, proc, &map) : NULL;
		int result = file ? add_mapping(file, pagemap, &map, err) : 0;
		if (result != 0)
			return result < 0 ? -1 : 0;
		if (file)
			heat->sources |= HEAT_TABLES;
	}
	return 0;
}

int heat_tables_add(struct heat *heat, pid_t root, struct fsnap_error *err)
{
	size_t n;
	cleanup_free pid_t *pids = heat_pids(root, &n, err);
	if (!pids)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (add_process(heat, pids[i], err) < 0)
			return -1;
	return 0;
}
