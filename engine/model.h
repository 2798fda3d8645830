/*
 * model.h - the records of an image, decoded and checked against each other.
 *
 * After model_load() every number that names another record leads to one, every
 * process has its parent before it, and nothing needs to be checked again; but for
 * what the states of open files name, which their kinds decode (engine/kinds/).
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "engine/numbers.h"
#include "store/store.h"

/* What its mappings may span: whole pages of its own size. */
static inline uint64_t shm_bytes(const image_shm *shm)
{
	return (shm->size + shm->page - 1) & ~(shm->page - 1);
}

struct model {
	image_tree tree;
	image_machine machine;
	image_ghost *ghosts;
	size_t n_ghosts;
	const image_ghost **ghost_of; /* by space; NULL where it is an address space */
	image_mapped *mapped;
	size_t n_mapped;
	image_mm *mms;
	size_t n_mms;
	image_file *files;
	size_t n_files;
	image_process *processes; /* root first */
	size_t n_processes;
	image_ipc ipc; /* empty where the image has none */
	struct numbers by_pid, mm_by_id; /* places in processes, mms */
	unsigned max_space; /* highest number of a ghost or address space */
};

int model_load(struct model *model, const struct image *image, struct fsnap_error *err);
void model_free(struct model *model);

const image_mm *model_mm(const struct model *model, unsigned id);
const image_ghost *model_ghost(const struct model *model, unsigned id);
const image_shm *model_shm(const image_ipc *ipc, unsigned ghost); /* whose content is that */
image_process *model_process(const struct model *model, int pid);

#endif
