#include <linux/mman.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/early.h"
#include "engine/leftover.h"
#include "engine/live.h"
#include "engine/procfs.h"
#include "engine/told.h"
#include "store/scope.h"

#define DELETED " (deleted)"

#ifndef MAP_DROPPABLE /* Linux 6.11 */
#define MAP_DROPPABLE 0x08
#endif

int maps_refuse(const struct process *process, const struct procfs_map *map, const char *what,
		const char *hint, struct fsnap_error *err)
{
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): mapping %lx-%lx (%s): %s", process->pid,
	     process->comm, map->start, map->end, map->path, what);
	return error_hint(err, "%s", hint);
}

/* --- content that others have, too ------------------------------------------- */

static int hint_of_contents(struct fsnap_error *err)
{
	if (!err || err->code != FSNAP_E_PERMISSION)
		return -1;
	return error_hint(err, "its content is reached through /proc/PID/map_files: run fsnap as root");
}

static int file_mapping(struct dump *dump, struct process *process, const struct procfs_map *map,
			image_vma *vma, struct fsnap_error *err)
{
	struct saved_mapped *mapped = mapped_find(dump, process, map, err);
	if (!mapped)
		return -1;
	if (vma->advice & ADVICE_MAY_WRITE)
		mapped->image.writable = 1;
	vma->kind = VMA_FILE;
	vma->object = mapped->image.id;
	return 0;
}

static int shared_mapping(struct dump *dump, struct process *process, const struct procfs_map *map,
			  const char *name, image_vma *vma, struct fsnap_error *err)
{
	vma->kind = VMA_SHARED;
	vma->object = ghost_find(dump, makedev(map->major, map->minor), map->inode);
	if (vma->object)
		return 0;
	cleanup_fd int fd = mapped_open(process, map);
	if (fd < 0) {
		fail(err, procfs_code(errno), errno, "process %d (%s): shared memory at %lx", process->pid,
		     process->comm, map->start);
		return hint_of_contents(err);
	}
	vma->object = ghost_save(dump, fd, 1, name, err);
	return vma->object ? 0 : -1;
}

static int segment_mapping(struct dump *dump, struct process *process, const struct procfs_map *map,
			   image_vma *vma, struct fsnap_error *err)
{
	vma->kind = VMA_SYSV;
	vma->object = ipc_shm_known(dump, map);
	if (vma->object)
		return 0;
	cleanup_fd int fd = mapped_open(process, map);
	if (fd < 0) {
		fail(err, procfs_code(errno), errno, "process %d (%s): System V shared memory at %lx",
		     process->pid, process->comm, map->start);
		return hint_of_contents(err);
	}
	vma->object = ipc_shm_mapped(dump, process, map, fd, err);
	return vma->object ? 0 : -1;
}

/* --- what a mapping is ------------------------------------------------------ */

static const struct {
	const char *prefix;
	const char *what;
	const char *hint;
} refused[] = {
	{ "anon_inode:", "memory of a kernel object", "it cannot be saved yet" },
	{ "[uprobes]", "probes are set in its text", "remove the uprobes (perf, bpftrace) first" },
	{ "socket:", "a packet ring", "it cannot be saved yet" },
	{ "/secretmem", "secret memory (memfd_secret)", "it exists so that nobody can read it, fsnap included" },
};

static bool is_special(const char *path)
{
	return strncmp(path, "[vdso", 5) == 0 || strncmp(path, "[vvar", 5) == 0;
}

static int refuse_marked(const struct process *process, const struct procfs_map *map, unsigned marks,
			 struct fsnap_error *err)
{
	if (marks & MARK_SHADOW_STACK)
		return maps_refuse(process, map, "a shadow stack",
				   "run the program without it: GLIBC_TUNABLES=glibc.cpu.x86_shstk=off", err);
	return 0;
}

static bool starts_with(const char *text, const char *beginning)
{
	return strncmp(text, beginning, strlen(beginning)) == 0;
}

static int classify(struct dump *dump, struct process *process, struct procfs_map *map, unsigned marks,
		    image_vma *vma, struct fsnap_error *err)
{
	if (strcmp(map->path, "anon_inode:[io_uring]") == 0) {
		vma->kind = VMA_RING;
		vma->object = (unsigned)map->inode; /* until rings_link() */
		return 0;
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (starts_with(map->path, refused[i].prefix))
			return maps_refuse(process, map, refused[i].what, refused[i].hint, err);
	if (refuse_marked(process, map, marks, err) < 0)
		return -1;
	if (ipc_is_segment(map))
		return segment_mapping(dump, process, map, vma, err);
	if (strcmp(map->path, "/[aio]" DELETED) == 0 && map->major == 0) {
		vma->kind = VMA_AIO;
		return 0;
	}
	if (is_special(map->path)) {
		vma->kind = VMA_SPECIAL;
		return 0;
	}
	bool huge = strcmp(map->path, "/anon_hugepage" DELETED) == 0;
	if (map->inode == 0 || (huge && !map->shared)) {
		vma->kind = VMA_ANON;
		vma->offset = 0;
		return 0;
	}
	/* Shared anonymous memory is a nameless file that the kernel calls so, or as the program says. */
	if (huge || strcmp(map->path, "/dev/zero" DELETED) == 0 || starts_with(map->path, "[anon_shmem:"))
		return shared_mapping(dump, process, map, huge ? "/anon_hugepage" : "/dev/zero", vma, err);
	if (marks & MARK_DEVICE)
		return maps_refuse(process, map, "memory of a device", "dump without the device", err);
	return file_mapping(dump, process, map, vma, err);
}

/* Of mmap(2)'s flags those that a mapping still shows. */
static unsigned mapping_flags(const struct procfs_map *map, const struct advice *advice)
{
	unsigned marks = advice->marks;
	unsigned flags = marks & MARK_DROPPABLE ? MAP_DROPPABLE :
			 marks & MARK_SYNC	? MAP_SHARED_VALIDATE | MAP_SYNC :
			 map->shared		? MAP_SHARED :
						  MAP_PRIVATE;
	/* What may be dropped reserves nothing anyway. */
	if (marks & MARK_NORESERVE && !(marks & MARK_DROPPABLE))
		flags |= MAP_NORESERVE;
	if (marks & MARK_GROWSDOWN)
		flags |= MAP_GROWSDOWN;
	if (marks & MARK_HUGETLB && advice->page)
		flags |= MAP_HUGETLB | (unsigned)__builtin_ctzll(advice->page) << MAP_HUGE_SHIFT;
	return flags;
}

static int add_vma(struct dump *dump, struct process *process, struct procfs_map *map, bool *asked,
		   struct fsnap_error *err)
{
	image_mm *mm = &process->mm;
	image_vma *array = grow(mm->vmas.vmas_val, mm->vmas.vmas_len, sizeof(*array), err);
	struct advice advice;
	if (!array)
		return -1;
	mm->vmas.vmas_val = array;
	if (maps_advice(dump, process, map->start, map->end, asked, &advice, err) < 0)
		return -1;
	image_vma *vma = &array[mm->vmas.vmas_len];
	*vma = (image_vma){
		.start = map->start,
		.end = map->end,
		.offset = map->offset,
		.prot = map->prot,
		.flags = mapping_flags(map, &advice),
		.advice = advice.flags,
		.pkey = advice.pkey,
		.name = strdup(map->path[0] == '[' ? map->path : ""),
	};
	if (!vma->name)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "mappings");
	mm->vmas.vmas_len++;
	if (map->shared && (advice.marks & MARK_MAY_WRITE || map->prot & PROT_WRITE))
		vma->advice |= ADVICE_MAY_WRITE;
	if (advice.marks & MARK_WATCHED_WRITES && live_watches(dump, process, map->start, map->end))
		advice.marks &= ~(unsigned)MARK_WATCHED_WRITES;
	if (classify(dump, process, map, advice.marks, vma, err) < 0)
		return -1;
	if (userfaults_add(process, map->start, map->end, map->shared, advice.marks, err) < 0)
		return -1;
	if (vma->kind == VMA_SYSV && !(vma->advice & ADVICE_MAY_WRITE))
		vma->advice |= ADVICE_READONLY;
	return 0;
}

static void forget_vmas(image_mm *mm)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		free(mm->vmas.vmas_val[i].name);
	free(mm->vmas.vmas_val);
	mm->vmas.vmas_val = NULL;
	mm->vmas.vmas_len = 0;
}

/* exec(2) lays a new stack; without one, executable and auxiliary vector are what they were when the
 * process was looked at before the freeze. */
static bool same_program(const image_mm *mm, const struct procfs_stat *stat)
{
	return mm->auxv.auxv_val && mm->exe && mm->start_stack == stat->start_stack &&
	       mm->start_code == stat->start_code && mm->arg_start == stat->arg_start &&
	       mm->env_end == stat->env_end;
}

static int collect_auxv(image_mm *mm, int proc, struct fsnap_error *err)
{
	size_t size = 0;
	free(mm->auxv.auxv_val);
	mm->auxv.auxv_val = procfs_read(proc, "auxv", &size, err);
	mm->auxv.auxv_len = (u_int)size;
	return mm->auxv.auxv_val ? 0 : -1;
}

static void note_fields(image_mm *mm, const struct procfs_stat *stat)
{
	mm->start_code = stat->start_code;
	mm->end_code = stat->end_code;
	mm->start_data = stat->start_data;
	mm->end_data = stat->end_data;
	mm->start_brk = stat->start_brk;
	mm->start_stack = stat->start_stack;
	mm->arg_start = stat->arg_start;
	mm->arg_end = stat->arg_end;
	mm->env_start = stat->env_start;
	mm->env_end = stat->env_end;
}

int maps_note_program(struct process *process, struct fsnap_error *err)
{
	struct procfs_stat stat;
	if (told_stat(process, &stat, err) < 0)
		return -1;
	process->executed = process->executed || !same_program(&process->mm, &stat);
	note_fields(&process->mm, &stat);
	process->image.pgid = stat.pgid;
	process->image.sid = stat.sid;
	process->image.terminal = stat.terminal;
	process->image.stop_told = process->n_tasks && process->tasks[0]->group_stop && !stat.exit_code;
	if (!process->image.leader_ended) /* other threads have none */
		process->image.exit_signal = stat.exit_signal;
	return 0;
}

int maps_collect(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	image_mm *mm = &process->mm;
	cleanup_free char *text = early_take(process, EARLY_MAPS);
	if (!text && !(text = mappings_text(dump, process, err)))
		return -1;
	if (dump->still)
		mappings_renew(dump, process);
	forget_vmas(mm);
	userfaults_forget(process);
	leftover_forget(process);
	struct procfs_map map;
	bool asked = false;
	for (char *cursor = text; procfs_next_map(&cursor, &map);) {
		if (strcmp(map.path, "[vsyscall]") == 0)
			continue;
		int ours = leftover_note(process, &map, err);
		if (ours < 0 || (!ours && add_vma(dump, process, &map, &asked, err) < 0))
			return -1;
	}
	if (!process->executed)
		return 0;
	process->executed = false;
	return collect_auxv(mm, process->proc, err) < 0 ? -1 : mapped_executable(dump, process, err);
}
