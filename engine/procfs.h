/*
 * procfs.h - reading /proc, from a process' own directory descriptor so that a
 * recycled PID can never be mistaken for the one that was asked for.
 */
#ifndef ENGINE_PROCFS_H
#define ENGINE_PROCFS_H

#include <stddef.h>
#include <sys/types.h>

#include "image.h"
#include "store/error.h"

/* Opens /proc/PID; NO_PROCESS where there is none. */
int procfs_open(pid_t pid, struct fsnap_error *err);

/* Reads a whole file into a malloc'ed, NUL-ended buffer; *size (may be NULL) without the NUL. */
char *procfs_read(int dir, const char *name, size_t *size, struct fsnap_error *err);

/* The fields of /proc/PID/stat that fsnap uses (proc(5) numbers them). */
struct procfs_stat {
	char comm[32];
	char state;
	pid_t ppid, pgid, sid;
	int exit_signal;
	int exit_code; /* of a zombie, as wait(2) reports it */
	unsigned long start_code, end_code, start_stack, start_data, end_data, start_brk;
	unsigned long arg_start, arg_end, env_start, env_end;
};

int procfs_stat(int dir, const char *name, struct procfs_stat *stat, struct fsnap_error *err);

/* The value behind "Key:" in /proc/PID/status, as a number; -1 where it is not there. */
long procfs_status_number(const char *status, const char *key);

/* Children of every thread of the process, malloc'ed; *count of them. */
pid_t *procfs_children(int dir, size_t *count, struct fsnap_error *err);

/* Thread IDs, the leader first. */
pid_t *procfs_threads(int dir, size_t *count, struct fsnap_error *err);

/* One line of /proc/PID/maps. `path` points into the text and is NUL-ended in place. */
struct procfs_map {
	unsigned long start, end, offset, inode;
	unsigned prot;
	int shared;
	unsigned major, minor;
	char *path;
};

/* Parses the line at *cursor and moves it behind; 0 at the end of the text. */
int procfs_next_map(char **cursor, struct procfs_map *map);

#endif
