#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "engine/build_id.h"
#include "engine/dump.h"
#include "engine/procfs.h"
#include "store/scope.h"

#define DELETED " (deleted)"

/* Beside enum image_advice; these never reach the image. */
#define ADVICE_MAYWRITE (1u << 28)
#define ADVICE_GROWSDOWN (1u << 29)
#define ADVICE_NORESERVE (1u << 30)
#define ADVICE_USERFAULT (1u << 31)

static int refuse_map(const struct process *process, const struct procfs_map *map, const char *what,
		      const char *hint, struct fsnap_error *err)
{
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): mapping %lx-%lx (%s): %s", process->pid,
	     process->comm, map->start, map->end, map->path, what);
	return error_hint(err, "%s", hint);
}

/* --- mapped files --------------------------------------------------------- */

static struct saved_mapped *find_mapped(struct dump *dump, const struct procfs_map *map)
{
	for (size_t i = 0; i < dump->n_mapped; i++) {
		struct saved_mapped *known = &dump->mapped[i];
		if (known->inode == map->inode && known->major == map->major && known->minor == map->minor)
			return known;
	}
	return NULL;
}

/* Opens what is mapped, even if its name is gone: /proc/PID/map_files, which needs
 * CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN (proc(5)); else by its path. */
static int open_mapped(const struct process *process, const struct procfs_map *map)
{
	char name[64];
	snprintf(name, sizeof(name), "map_files/%lx-%lx", map->start, map->end);
	int fd = openat(process->proc, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd >= 0 ? fd : open(map->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

static int note_build_id(image_mapped *mapped, int fd, struct fsnap_error *err)
{
	unsigned char id[BUILD_ID_MAX];
	size_t n = S_ISREG(mapped->identity.mode) && !mapped->identity.ghost ? build_id_read(fd, id) : 0;
	if (n == 0)
		return 0;
	mapped->build_id.build_id_val = malloc(n);
	if (!mapped->build_id.build_id_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "mapped files");
	memcpy(mapped->build_id.build_id_val, id, n);
	mapped->build_id.build_id_len = (u_int)n;
	return 0;
}

static struct saved_mapped *add_mapped(struct dump *dump, struct process *process,
				       const struct procfs_map *map, struct fsnap_error *err)
{
	cleanup_fd int fd = open_mapped(process, map);
	if (fd < 0) {
		fail(err, FSNAP_E_UNSUPPORTED, errno, "process %d (%s): cannot open mapped file %s",
		     process->pid, process->comm, map->path);
		error_hint(err, "run fsnap as root");
		return NULL;
	}
	struct stat stat;
	if (fstat(fd, &stat) < 0) {
		fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): mapped file %s", process->pid, process->comm,
		     map->path);
		return NULL;
	}
	bool zero = S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(1, 5); /* /dev/zero */
	if (!S_ISREG(stat.st_mode) && !zero) {
		refuse_map(process, map, "a device is mapped", "close the device, or dump without it", err);
		return NULL;
	}
	struct saved_mapped *array = grow(dump->mapped, dump->n_mapped, sizeof(*array), err);
	if (!array)
		return NULL;
	dump->mapped = array;
	struct saved_mapped *mapped = &array[dump->n_mapped];
	*mapped = (struct saved_mapped){ .major = map->major, .minor = map->minor, .inode = map->inode };
	if (dump_identity(dump, process, fd, map->path, &mapped->image.identity, err) < 0) {
		xdr_free((xdrproc_t)xdr_image_mapped, (char *)&mapped->image);
		return NULL;
	}
	if (note_build_id(&mapped->image, fd, err) < 0) {
		xdr_free((xdrproc_t)xdr_image_mapped, (char *)&mapped->image);
		return NULL;
	}
	mapped->image.id = (unsigned)++dump->n_mapped;
	return mapped;
}

static int file_mapping(struct dump *dump, struct process *process, const struct procfs_map *map,
			image_vma *vma, struct fsnap_error *err)
{
	struct saved_mapped *mapped = find_mapped(dump, map);
	if (!mapped && !(mapped = add_mapped(dump, process, map, err)))
		return -1;
	if (map->shared && (map->prot & PROT_WRITE))
		mapped->image.writable = 1;
	vma->kind = VMA_FILE;
	vma->object = mapped->image.id;
	return 0;
}

static int shared_mapping(struct dump *dump, struct process *process, const struct procfs_map *map,
			  image_vma *vma, struct fsnap_error *err)
{
	cleanup_fd int fd = open_mapped(process, map);
	if (fd < 0) {
		fail(err, FSNAP_E_PERMISSION, errno, "process %d (%s): shared memory at %lx", process->pid,
		     process->comm, map->start);
		return error_hint(err, "its content is reached through /proc/PID/map_files: run fsnap as root");
	}
	vma->kind = VMA_SHARED;
	vma->object = ghost_save(dump, fd, 1, "/dev/zero", err);
	return vma->object ? 0 : -1;
}

static int segment_mapping(struct dump *dump, struct process *process, const struct procfs_map *map,
			   image_vma *vma, struct fsnap_error *err)
{
	vma->kind = VMA_SYSV;
	vma->object = ipc_shm_known(dump, map);
	if (vma->object)
		return 0;
	cleanup_fd int fd = open_mapped(process, map);
	if (fd < 0) {
		fail(err, FSNAP_E_PERMISSION, errno, "process %d (%s): System V shared memory at %lx",
		     process->pid, process->comm, map->start);
		return error_hint(err, "its content is reached through /proc/PID/map_files: run fsnap as root");
	}
	vma->object = ipc_shm_mapped(dump, process, map, fd, err);
	return vma->object ? 0 : -1;
}

/* --- what was said about mappings ------------------------------------------- */

static const struct {
	char code[3]; /* in VmFlags of /proc/PID/smaps (proc(5)) */
	unsigned advice;
} flags[] = {
	{ "dc", ADVICE_DONTFORK },  { "wf", ADVICE_WIPEONFORK },  { "dd", ADVICE_DONTDUMP },
	{ "hg", ADVICE_HUGEPAGE },  { "nh", ADVICE_NOHUGEPAGE },  { "mg", ADVICE_MERGEABLE },
	{ "lo", ADVICE_LOCKED },    { "lf", ADVICE_ONFAULT },	  { "sr", ADVICE_SEQUENTIAL },
	{ "rr", ADVICE_RANDOM },    { "sl", ADVICE_SEALED },	  { "um", ADVICE_USERFAULT },
	{ "uw", ADVICE_USERFAULT }, { "ui", ADVICE_USERFAULT },	  { "nr", ADVICE_NORESERVE },
	{ "gd", ADVICE_GROWSDOWN }, { "mw", ADVICE_MAYWRITE },
};

static unsigned parse_flags(const char *codes)
{
	unsigned advice = 0;
	for (; *codes && *codes != '\n'; codes += 3)
		for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
			if (codes[0] == flags[i].code[0] && codes[1] == flags[i].code[1])
				advice |= flags[i].advice;
	return advice;
}

/* Pss_Dirty (Linux 6.0), else Private_Dirty: for an estimate. */
static uint64_t sum_dirty(const char *smaps)
{
	const char *key = strstr(smaps, "Pss_Dirty:") ? "Pss_Dirty:" : "Private_Dirty:";
	uint64_t kib = 0;
	for (const char *at = smaps; (at = strstr(at, key));)
		kib += strtoul(at += strlen(key), NULL, 10);
	return kib;
}

static bool any_shared(const char *smaps)
{
	static const char key[] = "Shared_Dirty:";
	for (const char *at = smaps; (at = strstr(at, key));)
		if (strtoul(at += strlen(key), NULL, 10))
			return true;
	return false;
}

int maps_survey(struct process *process, struct fsnap_error *err)
{
	cleanup_free char *text = procfs_read(process->proc, "smaps", NULL, err);
	if (!text)
		return -1;
	free(process->advice);
	process->advice = NULL;
	process->n_advice = 0;
	process->dirty = sum_dirty(text) * 1024;
	process->shares = any_shared(text);
	char *line = text;
	for (char *codes; (codes = strstr(line, "\nVmFlags: "));) {
		struct advice *array = grow(process->advice, process->n_advice, sizeof(*array), err);
		if (!array)
			return -1;
		process->advice = array;
		struct advice *advice = &array[process->n_advice++];
		char *cursor = line;
		advice->start = strtoul(cursor, &cursor, 16);
		advice->end = strtoul(cursor + 1, NULL, 16);
		advice->flags = parse_flags(codes + strlen("\nVmFlags: "));
		line = strchr(codes + 1, '\n');
		line = line ? line + 1 : codes + strlen(codes);
	}
	return 0;
}

/* Looks up what smaps said before the freeze. A mapping that has changed since is asked for anew:
 * that walks all page tables, which is why it is not done for every process while it stands still. */
static int find_advice(struct process *process, image_vma *vma, struct fsnap_error *err)
{
	for (int attempt = 0; attempt < 2; attempt++) {
		size_t low = 0, high = process->n_advice;
		while (low < high) {
			size_t middle = (low + high) / 2;
			if (process->advice[middle].start < vma->start)
				low = middle + 1;
			else
				high = middle;
		}
		if (low < process->n_advice && process->advice[low].start == vma->start &&
		    process->advice[low].end == vma->end) {
			vma->advice = process->advice[low].flags;
			return 0;
		}
		if (maps_survey(process, err) < 0)
			return -1;
	}
	return 0;
}

/* --- what a mapping is ------------------------------------------------------ */

static const struct {
	const char *prefix;
	const char *what;
	const char *hint;
} refused[] = {
	{ "/anon_hugepage", "huge pages (hugetlb)", "run the program without MAP_HUGETLB" },
	{ "/[aio]", "an asynchronous I/O context", "run the program without libaio" },
	{ "anon_inode:", "memory of a kernel object", "it cannot be saved yet" },
	{ "[uprobes]", "probes are set in its text", "remove the uprobes (perf, bpftrace) first" },
	{ "socket:", "a packet ring", "it cannot be saved yet" },
};

static bool is_special(const char *path)
{
	return strncmp(path, "[vdso", 5) == 0 || strncmp(path, "[vvar", 5) == 0;
}

static int classify(struct dump *dump, struct process *process, struct procfs_map *map, image_vma *vma,
		    struct fsnap_error *err)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (strncmp(map->path, refused[i].prefix, strlen(refused[i].prefix)) == 0)
			return refuse_map(process, map, refused[i].what, refused[i].hint, err);
	if (ipc_is_segment(map))
		return segment_mapping(dump, process, map, vma, err);
	if (is_special(map->path)) {
		vma->kind = VMA_SPECIAL;
		return 0;
	}
	if (map->inode == 0) {
		vma->kind = VMA_ANON;
		return 0;
	}
	/* Shared anonymous memory is a nameless file that the kernel calls so. */
	if (strcmp(map->path, "/dev/zero" DELETED) == 0)
		return shared_mapping(dump, process, map, vma, err);
	return file_mapping(dump, process, map, vma, err);
}

static int add_vma(struct dump *dump, struct process *process, struct procfs_map *map,
		   struct fsnap_error *err)
{
	image_mm *mm = &process->mm;
	image_vma *array = grow(mm->vmas.vmas_val, mm->vmas.vmas_len, sizeof(*array), err);
	if (!array)
		return -1;
	mm->vmas.vmas_val = array;
	image_vma *vma = &array[mm->vmas.vmas_len];
	*vma = (image_vma){
		.start = map->start,
		.end = map->end,
		.offset = map->offset,
		.prot = map->prot,
		.flags = map->shared ? MAP_SHARED : MAP_PRIVATE,
		.name = strdup(map->path[0] == '[' ? map->path : ""),
	};
	if (!vma->name)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "mappings");
	mm->vmas.vmas_len++;
	if (find_advice(process, vma, err) < 0)
		return -1;
	if (vma->advice & ADVICE_USERFAULT)
		return refuse_map(process, map, "a userfaultfd is registered for it",
				  "the program handles page faults itself; it cannot be saved yet", err);
	if (vma->advice & ADVICE_NORESERVE)
		vma->flags |= MAP_NORESERVE;
	if (vma->advice & ADVICE_GROWSDOWN)
		vma->flags |= MAP_GROWSDOWN;
	bool may_write = vma->advice & ADVICE_MAYWRITE;
	vma->advice &= ~(unsigned)(ADVICE_MAYWRITE | ADVICE_GROWSDOWN | ADVICE_NORESERVE | ADVICE_USERFAULT);
	if (classify(dump, process, map, vma, err) < 0)
		return -1;
	if (vma->kind == VMA_SYSV && !may_write)
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

static int collect_exe(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	cleanup_fd int fd = openat(process->proc, "exe", O_RDONLY | O_CLOEXEC);
	char path[4096];
	ssize_t n = readlinkat(process->proc, "exe", path, sizeof(path) - 1);
	struct stat stat;
	if (fd < 0 || n < 0 || fstat(fd, &stat) < 0)
		return fail(err, FSNAP_E_PERMISSION, errno, "process %d (%s): its executable", process->pid,
			    process->comm);
	path[n] = '\0';
	for (size_t i = 0; i < dump->n_mapped; i++) {
		const image_identity *known = &dump->mapped[i].image.identity;
		if (known->dev == stat.st_dev && known->ino == stat.st_ino) {
			process->mm.exe = dump->mapped[i].image.id;
			return 0;
		}
	}
	struct procfs_map map = { .major = major(stat.st_dev), .minor = minor(stat.st_dev),
				  .inode = stat.st_ino, .path = path };
	struct saved_mapped *mapped = add_mapped(dump, process, &map, err);
	process->mm.exe = mapped ? mapped->image.id : 0;
	return mapped ? 0 : -1;
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

int maps_collect(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	image_mm *mm = &process->mm;
	struct procfs_stat stat;
	if (procfs_stat(process->proc, "stat", &stat, err) < 0)
		return -1;
	bool same = same_program(mm, &stat);
	note_fields(mm, &stat);
	process->image.pgid = stat.pgid;
	process->image.sid = stat.sid;
	process->image.exit_signal = stat.exit_signal;
	cleanup_free char *text = procfs_read(process->proc, "maps", NULL, err);
	if (!text)
		return -1;
	forget_vmas(mm);
	struct procfs_map map;
	for (char *cursor = text; procfs_next_map(&cursor, &map);)
		if (strcmp(map.path, "[vsyscall]") != 0 && add_vma(dump, process, &map, err) < 0)
			return -1;
	if (same)
		return 0;
	return collect_auxv(mm, process->proc, err) < 0 ? -1 : collect_exe(dump, process, err);
}
