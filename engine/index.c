#include "engine/index.h"

#include <errno.h>
#include <stdlib.h>

#define FIRST_ROOM 64

/* Where the keys are, or the free entry where they belong. */
static struct index_entry *entry_for(const struct index *index, uint64_t a, uint64_t b)
{
	size_t i = ((a * 0x9e3779b97f4a7c15ull ^ b) * 0xff51afd7ed558ccdull >> 24) & (index->room - 1);
	while (index->entry[i].value && (index->entry[i].a != a || index->entry[i].b != b))
		i = (i + 1) & (index->room - 1);
	return &index->entry[i];
}

size_t index_find(const struct index *index, uint64_t a, uint64_t b)
{
	return index->room ? entry_for(index, a, b)->value - 1 : INDEX_NONE;
}

static int make_room(struct index *index, struct fsnap_error *err)
{
	struct index bigger = { .used = index->used, .room = index->room ? 2 * index->room : FIRST_ROOM };
	bigger.entry = calloc(bigger.room, sizeof(*bigger.entry));
	if (!bigger.entry)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an index of %zu entries", bigger.room);
	for (size_t i = 0; i < index->room; i++)
		if (index->entry[i].value)
			*entry_for(&bigger, index->entry[i].a, index->entry[i].b) = index->entry[i];
	free(index->entry);
	*index = bigger;
	return 0;
}

int index_add(struct index *index, uint64_t a, uint64_t b, size_t value, struct fsnap_error *err)
{
	if (4 * (index->used + 1) > 3 * index->room && make_room(index, err) < 0)
		return -1;
	*entry_for(index, a, b) = (struct index_entry){ a, b, value + 1 };
	index->used++;
	return 0;
}

void index_free(struct index *index)
{
	free(index->entry);
	*index = (struct index){ 0 };
}
