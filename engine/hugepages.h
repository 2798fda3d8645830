/*
 * hugepages.h - huge pages of the system's pool (hugetlb), asked for before anything is made.
 */
#ifndef ENGINE_HUGEPAGES_H
#define ENGINE_HUGEPAGES_H

#include "engine/model.h"
#include "store/store.h"

int hugepages_check(const struct model *model, const struct image *image, struct fsnap_error *err);

#endif
