/*
 * control_memory.c - where plans, agent and answers of a restore lie: one mapping, at the same address in every task
 * and here, in a gap that all address spaces of the image have.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/keeper.h"
#include "engine/machine.h"
#include "engine/procfs.h"
#include "engine/restore.h"
#include "store/scope.h"

/* Address space kept for control memory: its offsets are 32 bits wide. Behind it, room where the vDSO
 * waits, and then for pieces of System V segments and rings of asynchronous I/O (restorer/attach.c, restorer/aio.c). */
#define CONTROL_SPACE (1ull << 32)
#define PARKING_SPACE (1ull << 20)

struct memory_range *control_own_ranges(size_t *n, struct fsnap_error *err)
{
	cleanup_fd int self = procfs_open(getpid(), err);
	cleanup_free char *text = self >= 0 ? procfs_read(self, "maps", NULL, err) : NULL;
	size_t lines = 0;
	for (const char *c = text; c && *c; c++)
		lines += *c == '\n';
	struct memory_range *ranges = text ? malloc((lines + 1) * sizeof(*ranges)) : NULL;
	struct procfs_map map;
	if (text && !ranges)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "looking for a place for control memory");
	*n = 0;
	for (char *cursor = text; ranges && *n < lines && procfs_next_map(&cursor, &map);)
		if (map.end < CONTROL_SPACE << 16)
			ranges[(*n)++] = (struct memory_range){ map.start, map.end };
	return ranges;
}

static uint64_t parking_space(const struct model *model)
{
	const image_ipc *ipc = &model->ipc;
	uint64_t most = PARKING_SPACE;
	for (size_t i = 0; i < model->n_mms; i++)
		for (u_int j = 0; j < model->mms[i].aios.aios_len; j++)
			if (model->mms[i].aios.aios_val[j].size > most)
				most = model->mms[i].aios.aios_val[j].size;
	for (u_int i = 0; i < ipc->shms.shms_len; i++) {
		uint64_t room = shm_bytes(&ipc->shms.shms_val[i]) + ipc->shms.shms_val[i].page;
		most = room > most ? room : most;
	}
	return most;
}

/* Descriptors of rings that stay on the bench for the mappings, wherever files wait. */
static int list_rings(struct restore *restore, struct fsnap_error *err)
{
	size_t n = restore->model.n_files;
	restore->ring_fd = malloc((n + 1) * sizeof(int));
	if (!restore->ring_fd)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "files");
	for (size_t i = 0; i <= n; i++)
		restore->ring_fd[i] = -1;
	for (size_t i = 0; i < n; i++) {
		const struct file_kind *kind = file_kind_find(restore->model.files[i].kind);
		if (strcmp(kind->name, "io_uring") != 0 || kind->is_late(&restore->files[i].state))
			continue; /* or mapped when it is there: settle_files.c */
		int fd = restore->explaining ? workshop_pretend(restore) :
			 fcntl(restore_fd(restore, (unsigned)i + 1), F_DUPFD_CLOEXEC, restore->bench);
		if (fd < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "an io_uring");
		restore->ring_fd[i + 1] = fd;
	}
	return 0;
}

/* validate_prctl_map_addr() in kernel/sys.c asks for one of these. */
static bool may_name_program(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return (data[CAP_SYS_ADMIN / 32].effective >> CAP_SYS_ADMIN % 32 & 1) ||
	       (data[CAP_CHECKPOINT_RESTORE / 32].effective >> CAP_CHECKPOINT_RESTORE % 32 & 1);
}

/* Where pages come from; its places are the caller's to say. */
static struct memory_source source_of(const struct restore *restore)
{
	return (struct memory_source){
		.image = restore->image,
		.image_fds = restore->image_fds,
		.mapped_fd = restore->mapped_fd,
		.mapped_write_fd = restore->mapped_write_fd,
		.ghost_fd = restore->ghost_fd,
		.ring_fd = restore->ring_fd,
		.ipc = &restore->model.ipc,
		.specials = restore->source.specials, /* found when the machine was looked at */
		.n_specials = restore->source.n_specials,
	};
}

/* Where the keeper has it; what tasks may use is new for each copy. */
static int take_keepers(struct restore *restore, struct fsnap_error *err)
{
	const struct memory_source *from = &restore->keeper->source;
	struct memory_special *specials = calloc(from->n_specials + 1, sizeof(*specials));
	if (!specials || list_rings(restore, err) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	memcpy(specials, from->specials, from->n_specials * sizeof(*specials));
	restore->source = source_of(restore);
	restore->source.control = from->control;
	restore->source.parked = from->parked;
	restore->source.specials = specials;
	restore->source.n_specials = from->n_specials;
	restore->source.exe_stays = from->exe_stays;
	return 0;
}

static void note_program(struct restore *restore)
{
	if (restore->source.exe_stays)
		restore_note(restore, "/proc/PID/exe is fsnap: this user may not say what it was "
			     "(CAP_CHECKPOINT_RESTORE)");
}

int control_reserve(struct restore *restore, struct fsnap_error *err)
{
	if (restore->keeper) {
		int result = take_keepers(restore, err);
		note_program(restore);
		return result;
	}
	size_t n;
	cleanup_free struct memory_range *ours = control_own_ranges(&n, err);
	if (!ours || list_rings(restore, err) < 0)
		return -1;
	uint64_t hole = memory_find_hole(restore->model.mms, restore->model.n_mms, ours, n,
					 CONTROL_SPACE + parking_space(&restore->model));
	if (!hole)
		return fail(err, FSNAP_E_RESTORE_STEP, 0, "the program's address space has no gap of 4 GiB");
	restore->source = source_of(restore);
	restore->source.control = (struct memory_range){ hole, hole + CONTROL_SPACE };
	restore->source.parked = (struct memory_range){ hole + CONTROL_SPACE,
							hole + CONTROL_SPACE + parking_space(&restore->model) };
	restore->source.redirection = restore->foreign ? &restore->redirection : NULL;
	restore->source.exe_stays = !may_name_program();
	note_program(restore);
	return 0;
}

/* Nobody of an earlier copy has it any more. */
static int lay_keepers(struct restore *restore, struct fsnap_error *err)
{
	size_t size = plans_size(restore->plans), room = restore->keeper->size - AGENT_TEXT - 2 * STORE_PAGE;
	if (size > room)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans of %zu bytes", size);
	restore->control = restore->keeper->control;
	restore->control_size = restore->keeper->size;
	memset(restore_control(restore), 0, size);
	return plans_write(restore->plans, restore_control(restore), (uint64_t)restore->control, err);
}

int control_lay(struct restore *restore, struct fsnap_error *err)
{
	if (restore->keeper)
		return lay_keepers(restore, err);
	void *base = (void *)restore->source.control.start;
	size_t size = AGENT_TEXT + plans_size(restore->plans);
	cleanup_fd int fd = memfd_create("fsnap-control", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
	    mmap(base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) != base)
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory of %zu bytes", size);
	restore->control = base;
	restore->control_size = size;
	memcpy(base, agent_blob, agent_blob_size);
	if (plans_write(restore->plans, restore_control(restore), (uint64_t)base, err) < 0)
		return -1;
	if (mprotect(base, AGENT_TEXT, PROT_READ | PROT_EXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
	return 0;
}

void control_free(struct restore *restore)
{
	if (restore->control && !restore->keeper)
		munmap(restore->control, restore->control_size);
	for (size_t i = 0; restore->ring_fd && i <= restore->model.n_files; i++)
		if (restore->ring_fd[i] >= 0 && !restore->explaining)
			close(restore->ring_fd[i]);
	free(restore->ring_fd);
}
