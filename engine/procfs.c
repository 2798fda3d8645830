#include "engine/procfs.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/scope.h"

/* While a thread that executes a program takes the number of its main thread there is nobody by that number for a moment
 * (exchange_tids(), kernel/pid.c). */
#define EXCHANGED 100

static bool exists(pid_t pid)
{
	return kill(pid, 0) == 0 || errno == EPERM;
}

int procfs_open(pid_t pid, struct fsnap_error *err)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d", pid);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < EXCHANGED && fd < 0 && errno == ENOENT && exists(pid); i++)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ESRCH)) {
		fail(err, FSNAP_E_NO_PROCESS, 0, "there is no process %d", pid);
		return error_hint(err, "`ps -e` lists what runs; is it in another PID namespace?");
	}
	if (fd < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "cannot open %s", path);
	return fd;
}

/* "/proc/123" of the directory descriptor, "" if it is none. */
static const char *path_of(int dir, char *path, size_t size)
{
	char link[32];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	ssize_t n = readlink(link, path, size - 1);
	path[n > 0 ? n : 0] = '\0';
	return path;
}

int procfs_code(int sys)
{
	return sys == ESRCH ? FSNAP_E_TARGET_DIED :
	       sys == EACCES || sys == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_SYSTEM;
}

/* ESRCH and ENOENT both mean that the process went away under us. */
int procfs_failed(int dir, const char *name, struct fsnap_error *err)
{
	int sys = errno;
	int code = procfs_code(sys == ENOENT ? ESRCH : sys);
	char path[32];
	if (name[0] == '/')
		return fail(err, code, sys, "cannot read %s", name);
	return fail(err, code, sys, "cannot read %s/%s", path_of(dir, path, sizeof(path)), name);
}

#define FIRST_ROOM 8192

/* From its beginning. */
static char *read_open(int fd, int dir, const char *name, bool once, size_t *size, struct fsnap_error *err)
{
	size_t room = FIRST_ROOM, used = 0;
	cleanup_free char *text = malloc(room);
	while (text) {
		ssize_t n = pread(fd, text + used, room - used - 1, (off_t)used);
		if (n < 0) {
			procfs_failed(dir, name, err);
			return NULL;
		}
		used += (size_t)n;
		/* seq_file hands out at most a page or so a read: only 0 is the end. */
		if (n == 0 || (once && used < room - 1))
			break;
		if (room - used < 4096 + 1) {
			char *more = realloc(text, room *= 2);
			if (!more) {
				free(steal(&text));
				break;
			}
			text = more;
		}
	}
	if (!text) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "reading /proc/PID/%s", name);
		return NULL;
	}
	text[used] = '\0';
	if (size)
		*size = used;
	return steal(&text);
}

static char *read_all(int dir, const char *name, bool once, size_t *size, struct fsnap_error *err)
{
	cleanup_fd int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		return read_open(fd, dir, name, once, size, err);
	procfs_failed(dir, name, err);
	return NULL;
}

char *procfs_read(int dir, const char *name, size_t *size, struct fsnap_error *err)
{
	return read_all(dir, name, false, size, err);
}

char *procfs_read_once(int dir, const char *name, size_t *size, struct fsnap_error *err)
{
	return read_all(dir, name, true, size, err);
}

char *procfs_read_again(int fd, int dir, const char *name, bool once, struct fsnap_error *err)
{
	return read_open(fd, dir, name, once, NULL, err);
}

pid_t procfs_parent(pid_t pid)
{
	char path[32];
	struct procfs_stat stat;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return procfs_stat(AT_FDCWD, path, &stat, NULL) < 0 ? 0 : stat.ppid;
}

int procfs_stat(int dir, const char *name, struct procfs_stat *stat, struct fsnap_error *err)
{
	cleanup_free char *text = procfs_read_once(dir, name, NULL, err);
	return text ? procfs_parse_stat(text, name, stat, err) : -1;
}

int procfs_parse_stat(const char *text, const char *name, struct procfs_stat *stat, struct fsnap_error *err)
{
	/* comm may hold anything, ')' and spaces too: its end is the last ')'. */
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	if (!open || !close)
		return fail(err, FSNAP_E_SYSTEM, 0, "%s is not as proc(5) says: %.80s", name, text);
	snprintf(stat->comm, sizeof(stat->comm), "%.*s", (int)(close - open - 1), open + 1);
	unsigned long field[53] = { 0 };
	stat->state = close[2];
	char *cursor = (char *)close + 3;
	for (int i = 4; i <= 52 && *cursor; i++)
		field[i] = strtoul(cursor, &cursor, 10);
	stat->ppid = (pid_t)field[4];
	stat->pgid = (pid_t)field[5];
	stat->sid = (pid_t)field[6];
	stat->terminal = (unsigned)field[7];
	stat->flags = field[9];
	stat->ticks = field[14] + field[15];
	stat->start_time = field[22];
	stat->start_code = field[26];
	stat->end_code = field[27];
	stat->start_stack = field[28];
	stat->exit_signal = (int)field[38];
	stat->start_data = field[45];
	stat->end_data = field[46];
	stat->start_brk = field[47];
	stat->arg_start = field[48];
	stat->arg_end = field[49];
	stat->env_start = field[50];
	stat->env_end = field[51];
	stat->exit_code = (int)field[52];
	return 0;
}

long procfs_status_number(const char *status, const char *key)
{
	size_t length = strlen(key);
	for (const char *line = status; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) == 0 && line[length] == ':')
			return strtol(line + length + 1, NULL, 10);
	}
	return -1;
}

/* A growing list of PIDs. */
struct pids {
	pid_t *pid;
	size_t count, room;
};

static int pids_add(struct pids *list, pid_t pid, struct fsnap_error *err)
{
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 16;
		pid_t *more = realloc(list->pid, room * sizeof(*more));
		if (!more)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "listing processes");
		list->pid = more;
		list->room = room;
	}
	list->pid[list->count++] = pid;
	return 0;
}

/* getdents64(2) itself: what readdir(3) adds are system calls. */
int *procfs_numbers(int dir, const char *name, size_t *count, struct fsnap_error *err)
{
	*count = 0;
	cleanup_fd int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char buf[8192] __attribute__((aligned(8)));
	struct pids list = { 0 };
	ssize_t n = -1;
	if (fd < 0)
		procfs_failed(dir, name, err);
	else
		pids_add(&list, 0, err); /* so that an empty list is not NULL */
	while (list.pid && (n = getdents64(fd, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0; list.pid && at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(buf + at);
			at += entry->d_reclen;
			if (isdigit((unsigned char)entry->d_name[0]) &&
			    pids_add(&list, atoi(entry->d_name), err) < 0) {
				free(list.pid);
				list.pid = NULL;
			}
		}
	if (list.pid && n < 0) { /* half a list is none */
		procfs_failed(dir, name, err);
		free(list.pid);
		list.pid = NULL;
	}
	if (!list.pid)
		return NULL;
	memmove(list.pid, list.pid + 1, --list.count * sizeof(pid_t));
	*count = list.count;
	return list.pid;
}

pid_t *procfs_threads(int dir, size_t *count, struct fsnap_error *err)
{
	pid_t *threads = procfs_numbers(dir, "task", count, err);
	if (!threads || *count > 0)
		return threads;
	fail(err, FSNAP_E_TARGET_DIED, 0, "the process has no threads any more");
	free(threads);
	return NULL;
}

pid_t *procfs_children(int dir, const pid_t *threads, size_t n, size_t *count, struct fsnap_error *err)
{
	*count = 0;
	struct pids list = { 0 };
	pids_add(&list, 0, err); /* so that an empty list is not NULL */
	for (size_t i = 0; i < n && list.pid; i++) {
		char name[64];
		snprintf(name, sizeof(name), "task/%d/children", threads[i]);
		cleanup_free char *text = procfs_read(dir, name, NULL, NULL);
		/* A thread that ended in between has handed its children to a sibling. */
		for (char *cursor = text, *end; cursor; cursor = end) {
			pid_t pid = (pid_t)strtol(cursor, &end, 10);
			if (end == cursor)
				break;
			if (pids_add(&list, pid, err) < 0) {
				free(list.pid);
				return NULL;
			}
		}
	}
	if (!list.pid)
		return NULL;
	memmove(list.pid, list.pid + 1, --list.count * sizeof(pid_t));
	*count = list.count;
	return list.pid;
}

int procfs_next_map(char **cursor, struct procfs_map *map)
{
	char *line = *cursor;
	if (!line || !*line)
		return 0;
	char *next = strchr(line, '\n');
	if (next)
		*next++ = '\0';
	*cursor = next;
	map->start = strtoul(line, &line, 16);
	map->end = strtoul(line + 1, &line, 16);
	const char *perms = line + 1;
	map->prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) |
		    (perms[2] == 'x' ? PROT_EXEC : 0);
	map->shared = perms[3] == 's';
	map->offset = strtoul(perms + 5, &line, 16);
	map->major = (unsigned)strtoul(line + 1, &line, 16);
	map->minor = (unsigned)strtoul(line + 1, &line, 16);
	map->inode = strtoul(line + 1, &line, 10);
	while (*line == ' ')
		line++;
	map->path = line;
	return 1;
}
