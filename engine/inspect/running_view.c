/*
 * running_view.c - a view of a tree that runs, out of /proc and, if it is stopped
 * for it, ptrace.
 */
#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/inspect/view.h"
#include "engine/procfs.h"
#include "engine/seize.h"
#include "engine/trace.h"
#include "store/scope.h"

static char *link_of(int dir, const char *name)
{
	char target[4096];
	ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);

	return n < 0 ? NULL : strndup(target, (size_t)n);
}

/* --- memory ----------------------------------------------------------------------- */

static struct mapped_view *add_mapped(struct tree_view *view, pid_t pid,
				      const struct procfs_map *map, struct fsnap_error *err)
{
	uint64_t dev = (uint64_t)map->major << 32 | map->minor;

	for (size_t i = 0; i < view->n_mapped; i++) {
		const image_identity *known = &view->mapped[i].mapped.identity;
		if (known->dev == dev && known->ino == map->inode)
			return &view->mapped[i];
	}
	struct mapped_view *mapped = VIEW_ADD(view->mapped, view->n_mapped, err);
	if (!mapped)
		return NULL;
	mapped->tree = view;
	mapped->fd = -2;
	mapped->mapped.id = (unsigned)view->n_mapped;
	mapped->mapped.identity.dev = dev;
	mapped->mapped.identity.ino = map->inode;
	mapped->mapped.identity.path = strdup(map->path);
	/* Leads to the file even if it was deleted, or is in another mount namespace. */
	snprintf(mapped->way, sizeof(mapped->way), "/proc/%d/map_files/%lx-%lx", (int)pid,
		 map->start, map->end);
	return mapped;
}

static int add_vma(struct process_view *process, const struct procfs_map *map,
		   struct fsnap_error *err)
{
	size_t count = process->mm.vmas.vmas_len;
	image_vma *vma = VIEW_ADD(process->mm.vmas.vmas_val, count, err);

	if (!vma)
		return -1;
	process->mm.vmas.vmas_len = (u_int)count;
	bool kernels = !strncmp(map->path, "[v", 2);
	vma->start = map->start;
	vma->end = map->end;
	vma->offset = map->offset;
	vma->prot = map->prot;
	vma->flags = map->shared ? MAP_SHARED : MAP_PRIVATE;
	vma->kind = map->inode ? VMA_FILE : kernels ? VMA_SPECIAL : VMA_ANON;
	vma->name = strdup(map->path[0] == '[' ? map->path : "");
	if (!vma->name)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a mapping of process %d", process->process.pid);
	if (vma->kind != VMA_FILE)
		return 0;
	struct mapped_view *mapped = add_mapped(process->tree, process->process.pid, map, err);
	vma->object = mapped ? mapped->mapped.id : 0;
	return mapped ? 0 : -1;
}

static void find_exe(struct process_view *process, int dir)
{
	cleanup_free char *exe = link_of(dir, "exe");

	for (size_t i = 0; exe && i < process->tree->n_mapped; i++) {
		const image_mapped *mapped = &process->tree->mapped[i].mapped;
		if (mapped->identity.path && !strcmp(mapped->identity.path, exe))
			process->mm.exe = mapped->id;
	}
}

static int read_memory(struct process_view *process, int dir, struct fsnap_error *err)
{
	cleanup_free char *maps = procfs_read(dir, "maps", NULL, err);
	cleanup_free char *statm = procfs_read(dir, "statm", NULL, NULL);
	struct procfs_map map;
	unsigned long total, resident;

	if (!maps)
		return -1;
	for (char *cursor = maps; procfs_next_map(&cursor, &map);)
		if (strcmp(map.path, "[vsyscall]") && add_vma(process, &map, err))
			return -1;
	if (statm && sscanf(statm, "%lu %lu", &total, &resident) == 2)
		process->kept_bytes = (uint64_t)resident * STORE_PAGE;
	find_exe(process, dir);
	return 0;
}

/* --- descriptors -------------------------------------------------------------------- */

/* "socket:[123]" is a socket, "anon_inode:[eventpoll]" an eventpoll, anything with a name a file. */
static void kind_of_link(const char *link, char *kind, size_t size)
{
	const char *bracket = strstr(link, ":[");
	const char *word = link;

	if (!bracket || link[0] == '/')
		word = "file";
	else if (!strncmp(link, "anon_inode:[", 12))
		word = bracket + 2;
	else if (!strncmp(link, "anon_inode:", 11))
		word = link + 11;
	snprintf(kind, size, "%.*s", (int)strcspn(word, ":]"), word);
}

static void read_fdinfo(int dir, int number, image_file *file)
{
	char name[32];

	snprintf(name, sizeof(name), "fdinfo/%d", number);
	cleanup_free char *text = procfs_read(dir, name, NULL, NULL);
	const char *pos = text ? strstr(text, "pos:") : NULL;
	const char *flags = text ? strstr(text, "flags:") : NULL;
	if (pos)
		file->pos = strtoull(pos + 4, NULL, 10);
	if (flags)
		file->flags = (unsigned)strtoul(flags + 6, NULL, 8);
}

static int add_descriptor(struct process_view *process, int dir, int number,
			  struct fsnap_error *err)
{
	struct tree_view *view = process->tree;
	char name[32], kind[32];

	snprintf(name, sizeof(name), "fd/%d", number);
	cleanup_free char *link = link_of(dir, name);
	if (!link)
		return 0; /* closed meanwhile */
	image_file *file = VIEW_ADD(view->files, view->n_files, err);
	if (!file)
		return -1;
	size_t count = process->process.fds.fds_len;
	image_fd *fd = VIEW_ADD(process->process.fds.fds_val, count, err);
	if (!fd)
		return -1;
	process->process.fds.fds_len = (u_int)count;
	kind_of_link(link, kind, sizeof(kind));
	file->id = (unsigned)view->n_files;
	file->kind = strdup(kind);
	file->label = steal(&link);
	read_fdinfo(dir, number, file);
	fd->fd = number;
	fd->file = file->id;
	fd->cloexec = !!(file->flags & O_CLOEXEC);
	return 0;
}

static int by_number(const void *left, const void *right)
{
	return ((const image_fd *)left)->fd - ((const image_fd *)right)->fd;
}

static int read_descriptors(struct process_view *process, int dir, struct fsnap_error *err)
{
	int fd = openat(dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *all = fd >= 0 ? fdopendir(fd) : NULL;

	if (!all)
		return fail(err, procfs_code(errno), errno, "process %d: its descriptors",
			    process->process.pid);
	for (struct dirent *entry; (errno = 0, entry = readdir(all));)
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    add_descriptor(process, dir, atoi(entry->d_name), err))
			return -1;
	if (errno && errno != ENOENT && errno != ESRCH) /* it may end meanwhile */
		return fail(err, procfs_code(errno), errno, "process %d: its descriptors", process->process.pid);
	if (process->process.fds.fds_len)
		qsort(process->process.fds.fds_val, process->process.fds.fds_len, sizeof(image_fd),
		      by_number);
	return 0;
}

/* --- threads ------------------------------------------------------------------------ */

static struct task *task_of(struct process *running, pid_t tid)
{
	for (size_t i = 0; i < running->n_tasks; i++)
		if (running->tasks[i]->tid == tid)
			return running->tasks[i];
	return NULL;
}

static int read_registers(struct task *task, image_thread *thread, struct fsnap_error *err)
{
	if (trace_check(trace_get_state(task, err), task, err))
		return -1;
	thread->regs.regs_val = malloc(sizeof(task->regs));
	if (!thread->regs.regs_val)
		return fail(err, FSNAP_E_NOMEM, 0, "no memory for the registers of a thread");
	thread->regs.regs_len = sizeof(task->regs);
	memcpy(thread->regs.regs_val, &task->regs, sizeof(task->regs));
	return 0;
}

static int add_thread(struct process_view *process, struct process *running, pid_t tid,
		      struct fsnap_error *err)
{
	size_t count = process->process.threads.threads_len;
	image_thread *thread = VIEW_ADD(process->process.threads.threads_val, count, err);
	struct task *task = task_of(running, tid);
	char name[64];

	if (!thread)
		return -1;
	process->process.threads.threads_len = (u_int)count;
	thread->tid = tid;
	snprintf(name, sizeof(name), "task/%d/comm", (int)tid);
	thread->comm = procfs_read(running->proc, name, NULL, NULL);
	if (!thread->comm && !(thread->comm = strdup("")))
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the name of a thread");
	thread->comm[strcspn(thread->comm, "\n")] = '\0';
	return task ? read_registers(task, thread, err) : 0;
}

static int read_threads(struct process_view *process, struct process *running,
			struct fsnap_error *err)
{
	size_t count;
	cleanup_free pid_t *tids = procfs_threads(running->proc, &count, err);

	if (!tids)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (add_thread(process, running, tids[i], err))
			return -1;
	return 0;
}

/* --- processes ---------------------------------------------------------------------- */

static int read_process(struct process_view *process, struct process *running,
			struct fsnap_error *err)
{
	image_process *image = &process->process;
	struct procfs_stat stat;

	image->pid = running->pid;
	image->zombie = running->image.zombie;
	memcpy(process->comm, running->comm, sizeof(process->comm));
	if (procfs_stat(running->proc, "stat", &stat, err))
		return -1;
	image->ppid = running->ppid;
	image->pgid = stat.pgid;
	image->sid = stat.sid;
	if (image->zombie)
		return 0;
	image->cwd.path = link_of(running->proc, "cwd");
	return read_memory(process, running->proc, err) ||
			       read_descriptors(process, running->proc, err) ||
			       read_threads(process, running, err) ?
		       -1 :
		       0;
}

static bool has_gone(const struct fsnap_error *err)
{
	return err->code == FSNAP_E_NO_PROCESS || err->code == FSNAP_E_TARGET_DIED;
}

/* Children that end while they are looked at are left out; only the root must be there. */
static int find_descendants(struct tree *tree, struct fsnap_error *err)
{
	for (size_t i = 0; i < tree->n_processes; i++) {
		struct process *parent = tree->processes[i];
		size_t count;
		size_t n_threads;
		cleanup_free pid_t *threads = procfs_threads(parent->proc, &n_threads, NULL);
		cleanup_free pid_t *children = threads ?
			procfs_children(parent->proc, threads, n_threads, &count, NULL) : NULL;

		for (size_t j = 0; children && j < count; j++) {
			struct fsnap_error why = { 0 };
			if (seize_prepare(tree, children[j], parent->pid, &why) || has_gone(&why))
				continue;
			if (err)
				*err = why;
			return -1;
		}
	}
	return 0;
}

static int read_processes(struct tree_view *view, struct fsnap_error *err)
{
	for (size_t i = 0; i < view->running->n_processes; i++) {
		struct process_view *process = VIEW_ADD(view->processes, view->n_processes, err);
		struct fsnap_error why = { 0 };

		if (!process)
			return -1;
		process->tree = view;
		if (!read_process(process, view->running->processes[i], &why))
			continue;
		if (i == 0 || !has_gone(&why)) {
			*err = why;
			return -1;
		}
		process->process.zombie = 1;
	}
	return 0;
}

static void sum_up(struct tree_view *view)
{
	view->tree.root_pid = view->processes[0].process.pid;
	view->tree.comm = strdup(view->processes[0].comm);
	view->tree.processes = (unsigned)view->n_processes;
	for (size_t i = 0; i < view->n_processes; i++)
		view->tree.threads += view->processes[i].process.threads.threads_len;
}

int view_of_running(struct tree_view *view, pid_t pid, bool stop, struct fsnap_error *err)
{
	*view = (struct tree_view){ .running = calloc(1, sizeof(struct tree)) };
	if (!view->running)
		return fail(err, FSNAP_E_NOMEM, 0, "no memory to look at process %d", pid);
	if ((stop && seize_refuse_self(pid, err)) || !seize_prepare(view->running, pid, 0, err) ||
	    (stop ? seize_tree(view->running, NULL, err) : find_descendants(view->running, err)) ||
	    read_processes(view, err)) {
		view_free(view);
		return -1;
	}
	sum_up(view);
	return 0;
}

void view_let_go(struct tree_view *view)
{
	if (view->running)
		seize_release(view->running);
}
