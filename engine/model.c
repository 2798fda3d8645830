#include "engine/model.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/user.h>

/* Of PIDs (linux/threads.h, PID_MAX_LIMIT), and of descriptors with room above them for our own. */
#define PID_LIMIT 4194304
#define FD_LIMIT (INT_MAX / 2)

#ifndef MAP_DROPPABLE /* Linux 6.11 */
#define MAP_DROPPABLE 0x08
#endif

static int corrupt(struct fsnap_error *err, const char *what, long number)
{
	fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "the image's records contradict each other: %s %ld", what, number);
	return error_hint(err, "its checksums are right, so this is a bug of the fsnap that wrote it");
}

/* Decodes all records of one kind into a fresh array. */
static int load(const struct image *image, uint32_t kind, size_t size, xdrproc_t proc, void **array,
		size_t *count, struct fsnap_error *err)
{
	size_t n = image_count(image, kind);
	char *records = calloc(n + 1, size);
	if (!records)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "records of the image");
	*array = records;
	for (*count = 0; *count < n; ++*count)
		if (image_get(image, kind, *count, proc, records + *count * size, err) < 0)
			return -1;
	return 0;
}

static void release(void *array, size_t count, size_t size, xdrproc_t proc)
{
	for (size_t i = 0; array && i < count; i++)
		xdr_free(proc, (char *)array + i * size);
	free(array);
}

#define LOAD(member, count, kind, type) \
	load(image, kind, sizeof(type), (xdrproc_t)xdr_##type, (void **)&model->member, &model->count, err)
#define RELEASE(member, count, type) \
	release(model->member, model->count, sizeof(type), (xdrproc_t)xdr_##type)

const image_mm *model_mm(const struct model *model, unsigned id)
{
	size_t at = numbers_get(&model->mm_by_id, (int)id);
	return at == NUMBERS_NONE ? NULL : &model->mms[at];
}

const image_ghost *model_ghost(const struct model *model, unsigned id)
{
	return id <= model->n_mms + model->n_ghosts ? model->ghost_of[id] : NULL;
}

image_process *model_process(const struct model *model, int pid)
{
	size_t at = numbers_get(&model->by_pid, pid);
	return at == NUMBERS_NONE ? NULL : &model->processes[at];
}

static int add_number(struct numbers *index, int number, size_t at, const char *twice, struct fsnap_error *err)
{
	if (number <= 0 || numbers_get(index, number) != NUMBERS_NONE)
		return corrupt(err, twice, number);
	if (numbers_put(index, number, at) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "records of the image");
	return 0;
}

static int number_records(struct model *model, struct fsnap_error *err)
{
	for (size_t i = 0; i < model->n_mms; i++)
		if (add_number(&model->mm_by_id, (int)model->mms[i].id, i, "two address spaces of number", err) < 0)
			return -1;
	for (size_t i = 0; i < model->n_processes; i++)
		if (add_number(&model->by_pid, model->processes[i].pid, i, "two processes of number", err) < 0)
			return -1;
	return 0;
}

static int check_identity(const struct model *model, const image_identity *identity, struct fsnap_error *err)
{
	if (identity->ghost && !model_ghost(model, identity->ghost))
		return corrupt(err, "missing content of a file", identity->ghost);
	return 0;
}

/* MAP_FIXED or MAP_POPULATE, say, would do more than make a mapping. */
static bool is_plain_mapping(const image_vma *vma)
{
	unsigned type = vma->flags & MAP_TYPE;
	unsigned known = MAP_TYPE | MAP_GROWSDOWN | MAP_NORESERVE | MAP_SYNC | MAP_HUGETLB |
			 (unsigned)MAP_HUGE_MASK << MAP_HUGE_SHIFT;
	bool typed = type == MAP_PRIVATE || type == MAP_SHARED ||
		     (type == MAP_DROPPABLE && vma->kind == VMA_ANON) ||
		     (type == MAP_SHARED_VALIDATE && vma->kind == VMA_FILE);
	return typed && vma->kind >= VMA_ANON && vma->kind <= VMA_RING &&
	       !(vma->prot & ~(unsigned)(PROT_READ | PROT_WRITE | PROT_EXEC)) &&
	       !(vma->flags & ~known) && vma->pkey < 16;
}

const image_shm *model_shm(const image_ipc *ipc, unsigned ghost)
{
	for (u_int i = 0; i < ipc->shms.shms_len; i++)
		if (ipc->shms.shms_val[i].ghost == ghost)
			return &ipc->shms.shms_val[i];
	return NULL;
}

static int check_attached(const struct model *model, const image_vma *vma, struct fsnap_error *err)
{
	const image_shm *shm = model_shm(&model->ipc, vma->object);
	if (!shm)
		return corrupt(err, "mapping of a missing segment", vma->object);
	uint64_t size = shm_bytes(shm);
	if (vma->offset % STORE_PAGE || vma->offset > size || vma->end - vma->start > size - vma->offset)
		return corrupt(err, "mapping behind the end of segment", shm->perm.id);
	return 0;
}

static int check_vma(const struct model *model, const image_vma *vma, uint64_t previous_end,
		     struct fsnap_error *err)
{
	if (vma->start % STORE_PAGE || vma->end % STORE_PAGE || vma->start < previous_end ||
	    vma->end <= vma->start || vma->end > 0x7ffffffff000ull)
		return corrupt(err, "mapping out of place", (long)vma->start);
	if (!is_plain_mapping(vma))
		return corrupt(err, "mapping of no known sort", (long)vma->start);
	if (vma->kind == VMA_FILE && (vma->object == 0 || vma->object > model->n_mapped))
		return corrupt(err, "mapping of a missing file", vma->object);
	if (vma->kind == VMA_FILE && vma->advice & ADVICE_MAY_WRITE && !model->mapped[vma->object - 1].writable)
		return corrupt(err, "writable mapping of a file that is not", vma->object);
	if (vma->kind == VMA_SHARED && !model_ghost(model, vma->object))
		return corrupt(err, "mapping of missing shared memory", vma->object);
	if (vma->kind == VMA_RING && (vma->object == 0 || vma->object > model->n_files))
		return corrupt(err, "mapping of a missing io_uring", vma->object);
	if (vma->kind == VMA_SYSV)
		return check_attached(model, vma, err);
	return 0;
}

static int check_spans(const image_span *spans, u_int n, struct fsnap_error *err)
{
	uint64_t end = 0;
	for (u_int i = 0; i < n; end = spans[i++].end)
		if (spans[i].start % STORE_PAGE || spans[i].end % STORE_PAGE || spans[i].start < end ||
		    spans[i].end <= spans[i].start || spans[i].end > 0x7ffffffff000ull)
			return corrupt(err, "range out of place", (long)spans[i].start);
	return 0;
}

static int check_aios(const image_mm *mm, struct fsnap_error *err)
{
	for (u_int i = 0; i < mm->aios.aios_len; i++) {
		const image_aio *aio = &mm->aios.aios_val[i];
		uint64_t unread = aio->slots ? (aio->tail + aio->slots - aio->head) % aio->slots : 0;
		if (aio->size % STORE_PAGE || aio->size > 1ull << 32 || aio->slots == 0 ||
		    aio->slots != (aio->size - 32) / 32 || aio->head >= aio->slots ||
		    aio->tail >= aio->slots || aio->events.events_len != 32 * unread)
			return corrupt(err, "context of asynchronous I/O", (long)aio->start);
	}
	return 0;
}

static int check_mm(const struct model *model, const image_mm *mm, const struct image *image,
		    struct fsnap_error *err)
{
	if (mm->exe == 0 || mm->exe > model->n_mapped)
		return corrupt(err, "missing executable", mm->exe);
	uint64_t end = 0;
	for (u_int i = 0; i < mm->vmas.vmas_len; end = mm->vmas.vmas_val[i++].end)
		if (check_vma(model, &mm->vmas.vmas_val[i], end, err) < 0)
			return -1;
	if (check_spans(mm->guards.guards_val, mm->guards.guards_len, err) < 0 ||
	    check_spans(mm->huge.huge_val, mm->huge.huge_len, err) < 0 || check_aios(mm, err) < 0)
		return -1;
	/* Pages may only be put where there is a mapping to hold them. */
	size_t n;
	const struct page_run *runs = image_runs(image, mm->id, &n);
	u_int vma = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t at = runs[i].page * STORE_PAGE, stop = at + (uint64_t)runs[i].npages * STORE_PAGE;
		while (at < stop) {
			while (vma < mm->vmas.vmas_len && mm->vmas.vmas_val[vma].end <= at)
				vma++;
			if (vma == mm->vmas.vmas_len || mm->vmas.vmas_val[vma].start > at)
				return corrupt(err, "page without a mapping", (long)at);
			at = mm->vmas.vmas_val[vma].end;
		}
	}
	return 0;
}

/* Numbers are what is killed should the restore fail: 0 and -1 would be our own group, and everybody. */
static int check_threads(const image_process *process, struct fsnap_error *err)
{
	for (u_int i = 0; i < process->threads.threads_len; i++) {
		const image_thread *thread = &process->threads.threads_val[i];
		if (thread->tid <= 0 || thread->tid > PID_LIMIT)
			return corrupt(err, "thread number", thread->tid);
		bool ended = process->zombie || (process->leader_ended && i == 0);
		if (!ended && thread->regs.regs_len != sizeof(struct user_regs_struct))
			return corrupt(err, "registers of thread", thread->tid);
	}
	return 0;
}

static int check_fds(const struct model *model, const image_process *process, struct fsnap_error *err)
{
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		const image_fd *fd = &process->fds.fds_val[i];
		if (fd->fd < 0 || fd->fd > FD_LIMIT)
			return corrupt(err, "descriptor number", fd->fd);
		if (fd->file == 0 || fd->file > model->n_files)
			return corrupt(err, "missing file of descriptor", fd->fd);
	}
	return 0;
}

static int check_process(const struct model *model, size_t index, struct fsnap_error *err)
{
	const image_process *process = &model->processes[index];
	const image_process *parent = model_process(model, process->ppid);
	/* Children of an ended process are its parent's; nobody would make them. */
	if (index == 0 ? process->ppid != 0 || process->zombie :
			 !parent || parent >= process || parent->zombie)
		return corrupt(err, "process without parent", process->pid);
	if (process->threads.threads_len == 0 || process->threads.threads_val[0].tid != process->pid)
		return corrupt(err, "process without its main thread", process->pid);
	if (process->leader_ended && (process->zombie || process->threads.threads_len < 2))
		return corrupt(err, "threads of process", process->pid);
	if (check_threads(process, err) < 0 || check_fds(model, process, err) < 0)
		return -1;
	if (process->zombie)
		return 0;
	if (!model_mm(model, process->mm))
		return corrupt(err, "process without memory", process->pid);
	return check_identity(model, &process->cwd, err) < 0 ? -1 : check_identity(model, &process->root, err);
}

/* Pages go where our attachment of the segment is. */
static int check_segments(const struct model *model, const struct image *image, struct fsnap_error *err)
{
	for (u_int i = 0; i < model->ipc.shms.shms_len; i++) {
		const image_shm *shm = &model->ipc.shms.shms_val[i];
		size_t n;
		if (shm->page < STORE_PAGE || shm->page & (shm->page - 1) || shm->page > 1ull << 30 ||
		    shm->size == 0 || shm->size > 1ull << 46 || !model_ghost(model, shm->ghost))
			return corrupt(err, "System V segment", shm->perm.id);
		const struct page_run *runs = image_runs(image, shm->ghost, &n);
		for (size_t j = 0; j < n; j++)
			if ((runs[j].page + runs[j].npages) * STORE_PAGE > shm_bytes(shm))
				return corrupt(err, "page behind the end of segment", shm->perm.id);
	}
	return 0;
}

static int check_sets(const image_ipc *ipc, struct fsnap_error *err)
{
	for (u_int i = 0; i < ipc->undos.undos_len; i++)
		if (ipc->undos.undos_val[i].adjust < INT16_MIN || ipc->undos.undos_val[i].adjust > INT16_MAX)
			return corrupt(err, "adjustment of semaphore", ipc->undos.undos_val[i].adjust);
	return 0;
}

/* Numbers are handed out one by one: a larger one would only make our tables huge. */
static int index_ghosts(struct model *model, struct fsnap_error *err)
{
	size_t most = model->n_mms + model->n_ghosts;
	model->ghost_of = calloc(most + 1, sizeof(const image_ghost *));
	if (!model->ghost_of)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "records of the image");
	for (size_t i = 0; i < model->n_ghosts; i++) {
		const image_ghost *ghost = &model->ghosts[i];
		if (ghost->id == 0 || ghost->id > most || model->ghost_of[ghost->id])
			return corrupt(err, "space", ghost->id);
		if (ghost->huge & (ghost->huge - 1) ||
		    (ghost->huge && (ghost->huge < STORE_PAGE || ghost->size % ghost->huge)))
			return corrupt(err, "huge pages of space", ghost->id);
		model->ghost_of[ghost->id] = ghost;
		if (ghost->id > model->max_space)
			model->max_space = ghost->id;
	}
	return 0;
}

static int check(struct model *model, const struct image *image, struct fsnap_error *err)
{
	if (model->n_processes == 0)
		return corrupt(err, "number of processes", 0);
	if (number_records(model, err) < 0 || index_ghosts(model, err) < 0)
		return -1;
	for (size_t i = 0; i < model->n_mapped; i++)
		if (model->mapped[i].id != i + 1 || check_identity(model, &model->mapped[i].identity, err) < 0)
			return corrupt(err, "mapped file", model->mapped[i].id);
	if (check_segments(model, image, err) < 0 || check_sets(&model->ipc, err) < 0)
		return -1;
	for (size_t i = 0; i < model->n_files; i++)
		if (model->files[i].id != i + 1)
			return corrupt(err, "open file", model->files[i].id);
	for (size_t i = 0; i < model->n_mms; i++) {
		if (check_mm(model, &model->mms[i], image, err) < 0)
			return -1;
		if (model->mms[i].id > model->max_space)
			model->max_space = model->mms[i].id;
	}
	if (model->max_space > model->n_mms + model->n_ghosts)
		return corrupt(err, "space", model->max_space);
	for (size_t i = 0; i < model->n_processes; i++)
		if (check_process(model, i, err) < 0)
			return -1;
	return 0;
}

int model_load(struct model *model, const struct image *image, struct fsnap_error *err)
{
	if (image_count(image, IMAGE_TREE) != 1 || image_count(image, IMAGE_MACHINE) != 1)
		return corrupt(err, "number of trees", (long)image_count(image, IMAGE_TREE));
	if (image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &model->tree, err) < 0 ||
	    image_get(image, IMAGE_MACHINE, 0, (xdrproc_t)xdr_image_machine, &model->machine, err) < 0 ||
	    LOAD(ghosts, n_ghosts, IMAGE_GHOST, image_ghost) < 0 ||
	    LOAD(mapped, n_mapped, IMAGE_MAPPED, image_mapped) < 0 ||
	    LOAD(mms, n_mms, IMAGE_MM, image_mm) < 0 || LOAD(files, n_files, IMAGE_FILE, image_file) < 0 ||
	    LOAD(processes, n_processes, IMAGE_PROCESS, image_process) < 0)
		return -1;
	if (image_count(image, IMAGE_IPC) > 1)
		return corrupt(err, "number of System V records", (long)image_count(image, IMAGE_IPC));
	if (image_count(image, IMAGE_IPC) == 1 &&
	    image_get(image, IMAGE_IPC, 0, (xdrproc_t)xdr_image_ipc, &model->ipc, err) < 0)
		return -1;
	return check(model, image, err);
}

void model_free(struct model *model)
{
	xdr_free((xdrproc_t)xdr_image_tree, (char *)&model->tree);
	xdr_free((xdrproc_t)xdr_image_machine, (char *)&model->machine);
	free(model->ghost_of);
	RELEASE(ghosts, n_ghosts, image_ghost);
	RELEASE(mapped, n_mapped, image_mapped);
	RELEASE(mms, n_mms, image_mm);
	RELEASE(files, n_files, image_file);
	RELEASE(processes, n_processes, image_process);
	numbers_free(&model->by_pid);
	numbers_free(&model->mm_by_id);
	xdr_free((xdrproc_t)xdr_image_ipc, (char *)&model->ipc);
}
