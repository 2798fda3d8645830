#include "engine/file_keys.h"

#include <stdint.h>
#include <stdlib.h>

int file_keys_add(struct file_keys *keys, const struct file_kind *kind, uint64_t key, size_t index,
		  struct fsnap_error *err)
{
	if ((keys->n & (keys->n - 1)) == 0) {
		struct file_key *more = reallocarray(keys->list, keys->n ? 2 * keys->n : 1, sizeof(*more));
		if (!more)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "descriptors");
		keys->list = more;
	}
	keys->list[keys->n++] = (struct file_key){ kind, key, index };
	return 0;
}

static int compare(const void *one, const void *other)
{
	const struct file_key *a = one, *b = other;
	if (a->kind != b->kind)
		return (uintptr_t)a->kind < (uintptr_t)b->kind ? -1 : 1;
	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	return (a->index > b->index) - (a->index < b->index);
}

void file_keys_sort(struct file_keys *keys)
{
	if (keys->n)
		qsort(keys->list, keys->n, sizeof(*keys->list), compare);
	keys->made = true;
}

void file_keys_free(struct file_keys *keys)
{
	free(keys->list);
	*keys = (struct file_keys){ 0 };
}

static size_t first(const struct file_keys *keys, const struct file_key *wanted)
{
	size_t low = 0, high = keys->n;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (compare(&keys->list[middle], wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

size_t file_keys_next(const struct file_keys *keys, const struct file_kind *kind, uint64_t key, size_t *at)
{
	const struct file_key wanted = { kind, key, 0 };
	size_t place = *at ? *at : first(keys, &wanted);
	*at = place + 1;
	if (place >= keys->n || keys->list[place].kind != kind || keys->list[place].key != key)
		return SIZE_MAX;
	return keys->list[place].index;
}
