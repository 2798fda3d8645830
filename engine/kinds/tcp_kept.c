/*
 * tcp_kept.c - which connections a restore keeps: those within the tree, and those to the outside whose packets have been
 * held back since the dump, or that the caller wants. While our sockets are not all there, nobody may answer for them.
 */
#include <stdlib.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/tcp_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

static bool keeps_outside(struct restore *restore)
{
	int wish = restore_options(restore)->tcp;
	if (wish != FSNAP_TCP_DEFAULT)
		return wish == FSNAP_TCP_KEEP;
	const char *hold = restore_hold(restore);
	return hold[0] && tcp_hold_stands(hold);
}

bool tcp_is_kept(const struct tcp_kept *kept, unsigned how)
{
	return how == TCP_INSIDE || (how == TCP_OUTSIDE && kept->outside);
}

/* Connections of the file that are kept: itself, or those that wait at it. */
static size_t list_ends(const struct tcp_kept *kept, const image_file_tcp *state, struct tcp_ends *list)
{
	size_t n = 0;
	if (state->state == TCP_IS_CONNECTION && tcp_is_kept(kept, state->kept))
		list[n++] = tcp_ends_of(state);
	for (u_int i = 0; i < state->waiting.waiting_len; i++)
		if (tcp_is_kept(kept, state->waiting.waiting_val[i].kept))
			list[n++] = tcp_waiting_ends(&state->waiting.waiting_val[i]);
	return n;
}

static int hold_meanwhile(struct restore *restore, struct tcp_kept *kept, struct fsnap_error *err)
{
	const image_file_tcp *state;
	const image_file *ignored;
	size_t n = 0;
	for (size_t i = 0; (state = restore_file_state(restore, "tcp", i, &ignored)); i++)
		n += 1 + state->waiting.waiting_len;
	cleanup_free struct tcp_ends *list = calloc(n + 1, sizeof(*list));
	if (!list || !(kept->files = calloc(n + 1, sizeof(*kept->files))))
		return no_memory(err);
	n = 0;
	for (size_t i = 0; (state = restore_file_state(restore, "tcp", i, &ignored)); i++)
		n += list_ends(kept, state, list + n);
	snprintf(kept->name, sizeof(kept->name), "fsnap-restore-%d", getpid());
	struct fsnap_error why = { 0 };
	kept->hold = tcp_hold(kept->name, true, list, n, &why);
	/* Two ends that are both ours get along without, all but their first packets. */
	if (kept->hold >= 0 || !kept->outside)
		return 0;
	*err = why;
	return -1;
}

struct tcp_kept *tcp_kept_of(struct restore *restore, struct fsnap_error *err)
{
	void **slot = restore_scratch(restore, &kind_tcp);
	struct tcp_kept *kept = *slot;
	if (kept)
		return kept;
	*slot = kept = calloc(1, sizeof(*kept));
	if (!kept) {
		no_memory(err);
		return NULL;
	}
	kept->hold = -1;
	kept->outside = keeps_outside(restore);
	return hold_meanwhile(restore, kept, err) < 0 ? NULL : kept;
}

void tcp_restore_end(void *of)
{
	struct tcp_kept *kept = of;
	if (kept->hold >= 0)
		close(kept->hold);
	free(kept->files);
}

void tcp_kept_let_pass(struct restore *restore, struct tcp_kept *kept)
{
	if (kept->hold >= 0)
		close(kept->hold);
	kept->hold = -1;
	if (restore_hold(restore)[0])
		tcp_hold_remove(restore_hold(restore), NULL);
}
