/*
 * procfs.h - reading /proc, from a process' own directory descriptor so that a
 * recycled PID can never be mistaken for the one that was asked for.
 */
#ifndef ENGINE_PROCFS_H
#define ENGINE_PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "image.h"
#include "store/error.h"

/* Opens /proc/PID; NO_PROCESS where there is none. */
int procfs_open(pid_t pid, struct fsnap_error *err);

/* Reads a whole file into a malloc'ed, NUL-ended buffer; *size (may be NULL) without the NUL. */
char *procfs_read(int dir, const char *name, size_t *size, struct fsnap_error *err);

/* The same for a file that the kernel writes in one go (stat, status, fdinfo/N, ...: seq_file(9),
 * single_open()): one read, and no second one to see the end. */
char *procfs_read_once(int dir, const char *name, size_t *size, struct fsnap_error *err);

/* A file of directory `dir` that is open already, from its beginning; `once` as above. */
char *procfs_read_again(int fd, int dir, const char *name, bool once, struct fsnap_error *err);

/* The parent of a process; 0: it has none, or does not exist. */
pid_t procfs_parent(pid_t pid);

/* The fields of /proc/PID/stat that fsnap uses (proc(5) numbers them). */
struct procfs_stat {
	char comm[32];
	char state;
	unsigned long flags; /* PF_* of the kernel */
	unsigned terminal; /* its controlling one, as a device number; 0: none */
	pid_t ppid, pgid, sid;
	int exit_signal;
	int exit_code; /* as wait(2) reports it: of a zombie; of a stopped process the signal, until it has */
	unsigned long start_time; /* clock ticks of CLOCK_BOOTTIME */
	unsigned long ticks; /* of processor time, user and system */
	unsigned long start_code, end_code, start_stack, start_data, end_data, start_brk;
	unsigned long arg_start, arg_end, env_start, env_end;
};

/* What an error of the kernel about another process means: TARGET_DIED, PERMISSION or SYSTEM. */
int procfs_code(int sys);
/* Says why `name` in that directory cannot be read (errno): TARGET_DIED, PERMISSION or SYSTEM. Returns -1. */
int procfs_failed(int dir, const char *name, struct fsnap_error *err);
int procfs_stat(int dir, const char *name, struct procfs_stat *stat, struct fsnap_error *err);
int procfs_parse_stat(const char *text, const char *name, struct procfs_stat *stat, struct fsnap_error *err);

/* The value behind "Key:" in /proc/PID/status, as a number; -1 where it is not there. */
long procfs_status_number(const char *status, const char *key);

/* Children of the n threads of a process, malloc'ed; *count of them. */
pid_t *procfs_children(int dir, const pid_t *threads, size_t n, size_t *count, struct fsnap_error *err);

/* The names in a directory that are numbers, in the kernel's order (of task: the leader first);
 * malloc'ed, *count of them. */
int *procfs_numbers(int dir, const char *name, size_t *count, struct fsnap_error *err);

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
