#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"

int unix_failed(const image_file *file, struct fsnap_error *err, const char *step)
{
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): %s", file->id, file->label, step);
}

static int compare_names(const char *a, unsigned a_length, const char *b, unsigned b_length)
{
	if (a_length != b_length)
		return a_length < b_length ? -1 : 1;
	return a_length ? memcmp(a, b, a_length) : 0;
}

static int by_ino(const void *a, const void *b)
{
	const struct unix_end *left = a, *right = b;
	return left->state->ino < right->state->ino ? -1 : left->state->ino > right->state->ino;
}

static int by_name(const void *a, const void *b)
{
	const image_file_unix *left = (*(struct unix_end *const *)a)->state;
	const image_file_unix *right = (*(struct unix_end *const *)b)->state;
	if (left->type != right->type)
		return left->type < right->type ? -1 : 1;
	return compare_names(left->address.address_val, left->address.address_len,
			     right->address.address_val, right->address.address_len);
}

static size_t count_sockets(struct restore *restore)
{
	const image_file *file;
	size_t n = 0;
	for (unsigned id = 1; restore_file_by_id(restore, id, &file); id++)
		n += !strcmp(file->kind, kind_unix.name);
	return n;
}

/* One block: the engine frees it. */
static struct unix_bench *new_bench(struct restore *restore)
{
	size_t n = count_sockets(restore);
	struct unix_bench *bench = calloc(1, sizeof(*bench) + n * (sizeof(struct unix_end) +
								    sizeof(struct unix_end *)));
	if (!bench)
		return NULL;
	const image_file *file;
	const void *state;
	for (unsigned id = 1; (state = restore_file_by_id(restore, id, &file)); id++)
		if (!strcmp(file->kind, kind_unix.name))
			bench->ends[bench->n++] = (struct unix_end){file, state, .orphan = -1};
	qsort(bench->ends, n, sizeof(bench->ends[0]), by_ino);
	bench->by_name = (struct unix_end **)&bench->ends[n];
	for (size_t i = 0; i < n; i++)
		if (bench->ends[i].state->address.address_len)
			bench->by_name[bench->n_named++] = &bench->ends[i];
	qsort(bench->by_name, bench->n_named, sizeof(*bench->by_name), by_name);
	bench->shadow.restore = restore;
	bench->shadow.fd = bench->made = -1;
	return bench;
}

struct unix_bench *unix_bench_of(struct restore *restore, struct fsnap_error *err)
{
	void **slot = restore_scratch(restore, &kind_unix);
	if (!*slot && !(*slot = new_bench(restore)))
		fail(err, FSNAP_E_NOMEM, 0, "out of memory while restoring descriptors");
	return *slot;
}

void unix_bench_close(void *scratch)
{
	struct unix_bench *bench = scratch;
	for (size_t i = 0; i < bench->n; i++)
		if (bench->ends[i].orphan >= 0)
			close(bench->ends[i].orphan);
	if (bench->shadow.fd >= 0)
		close(bench->shadow.fd);
}

struct unix_end *unix_end_of(struct unix_bench *bench, uint64_t ino)
{
	image_file_unix state = {.ino = ino};
	struct unix_end key = {.state = &state};
	return ino ? bsearch(&key, bench->ends, bench->n, sizeof(key), by_ino) : NULL;
}

struct unix_end *unix_end_named(struct unix_bench *bench, int type, const image_file_unix *like,
				unsigned state)
{
	image_file_unix named = {.type = type, .address = like->address};
	struct unix_end key = {.state = &named}, *wanted = &key;
	if (!named.address.address_len)
		return NULL;
	struct unix_end **end = bench->by_name + bench->n_named;
	struct unix_end **at = bsearch(&wanted, bench->by_name, bench->n_named, sizeof(*at), by_name);
	while (at && at > bench->by_name && by_name(at - 1, &wanted) == 0)
		at--;
	for (; at && at < end && by_name(at, &wanted) == 0; at++)
		if (!state || (*at)->state->state == state)
			return *at;
	return NULL;
}
