/*
 * uring_look.c - what of a ring of io_uring no call tells and fdinfo does not show: looked at in the kernel's memory
 * (peek.h), where its shape is known. Provided buffers, restrictions, who polls, registered credentials and settings.
 */
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bpf/async.h"
#include "engine/kinds/peek.h"
#include "engine/kinds/table.h"
#include "engine/kinds/uring_look.h"
#include "store/scope.h"

/* io_uring/kbuf.h, io_uring/memmap.c */
#define GROUP_IS_RING 1u
#define GROUP_IS_INCREMENTAL 2u
#define REGION_IS_USERS 2u

#define LIST_MOST 65536u /* buffers of a group: their numbers have 16 bits */

/* --- where things lie ------------------------------------------------------------------- */

static const struct peek_member wanted[URING_MEMBERS] = {
	[RING_CREDS] = { "io_ring_ctx", "sq_creds", 0 },
	[RING_POLLER] = { "io_ring_ctx", "sq_data", 0 },
	[RING_LIMITS] = { "io_ring_ctx", "restrictions", 0 },
	[LIMITS_REGISTER] = { "io_restriction", "register_op", 0 },
	[LIMITS_SQE] = { "io_restriction", "sqe_op", 0 },
	[LIMITS_ALLOWED] = { "io_restriction", "sqe_flags_allowed", 0 },
	[LIMITS_REQUIRED] = { "io_restriction", "sqe_flags_required", 0 },
	[LIMITS_SET] = { "io_restriction", "registered", 0 },
	[RING_GROUPS] = { "io_ring_ctx", "io_bl_xa", 0 },
	[RING_PERSONALITIES] = { "io_ring_ctx", "personalities", 0 },
	[RING_NEXT_PERSONALITY] = { "io_ring_ctx", "pers_next", 0 },
	[XA_HEAD] = { "xarray", "xa_head", 0 },
	[NODE_SHIFT] = { "xa_node", "shift", 0 },
	[NODE_SLOTS] = { "xa_node", "slots", 0 },
	[GROUP_LIST] = { "io_buffer_list", "buf_list", 0 },
	[GROUP_ENTRIES] = { "io_buffer_list", "nr_entries", 0 },
	[GROUP_HEAD] = { "io_buffer_list", "head", 0 },
	[GROUP_FLAGS] = { "io_buffer_list", "flags", 0 },
	[GROUP_REGION] = { "io_buffer_list", "region", 0 },
	[BUFFER_LIST] = { "io_buffer", "list", 0 },
	[BUFFER_ADDRESS] = { "io_buffer", "addr", 0 },
	[BUFFER_LENGTH] = { "io_buffer", "len", 0 },
	[BUFFER_NUMBER] = { "io_buffer", "bid", 0 },
	[REGION_PAGES] = { "io_mapped_region", "pages", 0 },
	[REGION_COUNT] = { "io_mapped_region", "nr_pages", 0 },
	[REGION_FLAGS] = { "io_mapped_region", "flags", 0 },
	[RING_RINGS] = { "io_ring_ctx", "ring_region", 0 },
	[RING_SQES] = { "io_ring_ctx", "sq_region", 0 },
	[RING_PARAM] = { "io_ring_ctx", "param_region", 0 },
	[RING_ALLOC_START] = { "io_ring_ctx", "file_alloc_start", 0 },
	[RING_ALLOC_END] = { "io_ring_ctx", "file_alloc_end", 0 },
	[RING_WORKERS] = { "io_ring_ctx", "iowq_limits", 0 },
	[RING_CLOCK] = { "io_ring_ctx", "clockid", 0 },
	[CRED_IDS] = { "cred", "uid", 0 },
	[CRED_INHERITABLE] = { "cred", "cap_inheritable", 0 },
	[CRED_PERMITTED] = { "cred", "cap_permitted", 0 },
	[CRED_EFFECTIVE] = { "cred", "cap_effective", 0 },
	[CRED_GROUPS] = { "cred", "group_info", 0 },
	[GROUPS_N] = { "group_info", "ngroups", 0 },
	[GROUPS_IDS] = { "group_info", "gid", 0 },
	[UBUF_PAGES] = { "io_mapped_ubuf", "bvec", 0 },
	[RING_BUFFERS] = { "io_ring_ctx", "buf_table", 0 },
	[TABLE_NODES] = { "io_rsrc_data", "nodes", 0 },
	[NODE_BUFFER] = { "io_rsrc_node", "buf", 0 },
};

/* What not every kernel has. */
static const struct peek_member napi[URING_NAPI_MEMBERS] = {
	{ "io_ring_ctx", "napi_busy_poll_dt", 0 },
	{ "io_ring_ctx", "napi_prefer_busy_poll", 0 },
	{ "io_ring_ctx", "napi_track_mode", 0 },
};
static const struct peek_member left[1] = { { "io_buffer_list", "min_left_sub_one", 0 } };
static const struct peek_member zero_copy[1] = { { "io_ring_ctx", "zcrx_ctxs", 0 } };

void uring_know(struct dump *dump, struct uring_shape *shape)
{
	struct peek *peek = dump_peek(dump);
	if (shape->asked)
		return;
	shape->asked = true;
	memcpy(shape->at, wanted, sizeof(wanted));
	memcpy(shape->napi, napi, sizeof(napi));
	shape->left = left[0];
	shape->zero_copy = zero_copy[0];
	shape->known = peek && peek_layout(peek, shape->at, URING_MEMBERS);
	shape->has_napi = shape->known && peek_layout(peek, shape->napi, URING_NAPI_MEMBERS);
	shape->has_left = shape->known && peek_layout(peek, &shape->left, 1);
	shape->has_zero_copy = shape->known && peek_layout(peek, &shape->zero_copy, 1);
}

/* --- reading -------------------------------------------------------------------------- */

struct look {
	struct peek *peek;
	const struct uring_shape *shape;
	uint64_t ring;
};

static uint64_t word(const struct look *look, uint64_t of, enum uring_member member)
{
	return peek_word(look->peek, of, look->shape->at[member].offset);
}

static uint32_t half(const struct look *look, uint64_t of, enum uring_member member)
{
	return peek_half(look->peek, of, look->shape->at[member].offset);
}

/* Its lowest bytes: the neighbours are read with them. */
static uint32_t small(const struct look *look, uint64_t of, enum uring_member member, unsigned bytes)
{
	return half(look, of, member) & (bytes == 1 ? 0xffu : 0xffffu);
}

static bool is_node(uint64_t entry)
{
	return (entry & 3) == 2 && entry > 4096; /* include/linux/xarray.h */
}

/* What an xarray has at *index or behind; 0: nothing. */
static uint64_t next_entry(const struct look *look, uint64_t array, uint64_t *index)
{
	enum { SLOTS = 64 };
	while (true) {
		uint64_t entry = word(look, array, XA_HEAD);
		unsigned shift = 0;
		if (!is_node(entry))
			return *index == 0 ? entry : 0;
		for (bool top = true; is_node(entry); top = false) {
			uint64_t node = entry - 2;
			shift = small(look, node, NODE_SHIFT, 1);
			if (shift > 60 || (top && *index >> shift >= SLOTS))
				return 0;
			entry = peek_word(look->peek, node, look->shape->at[NODE_SLOTS].offset +
								    (*index >> shift) % SLOTS * 8);
		}
		if (entry && (entry & 3) != 2) /* else the array's own: a place that is not given out */
			return entry;
		*index = ((*index >> shift) + 1) << shift;
	}
}

static void *append(u_int *n, void *array, size_t size, struct fsnap_error *err)
{
	void *more = realloc(array, (*n + 1) * size);
	if (!more) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
		return NULL;
	}
	memset((char *)more + *n * size, 0, size);
	(*n)++;
	return more;
}

/* --- provided buffers ------------------------------------------------------------------ */

static bool continues(const image_ring_provided *run, uint32_t group, uint64_t address, uint32_t length, uint32_t number)
{
	return run->group == group && run->length == length && run->first + run->count == number &&
	       run->address + (uint64_t)run->count * length == address;
}

static int add_provided(image_file_io_uring *state, uint32_t group, uint64_t address, uint32_t length, uint32_t number,
			struct fsnap_error *err)
{
	u_int n = state->provided.provided_len;
	image_ring_provided *last = n ? &state->provided.provided_val[n - 1] : NULL;
	if (last && continues(last, group, address, length, number)) {
		last->count++;
		return 0;
	}
	image_ring_provided *more = append(&state->provided.provided_len, state->provided.provided_val, sizeof(*more),
					   err);
	if (!more)
		return -1;
	state->provided.provided_val = more;
	more[n] = (image_ring_provided){ group, number, 1, length, address };
	return 0;
}

/* In the order in which they will be chosen. */
static int look_at_list(const struct look *look, uint32_t id, uint64_t group, image_file_io_uring *state,
			struct fsnap_error *err)
{
	uint64_t head = group + look->shape->at[GROUP_LIST].offset, link = peek_word(look->peek, head, 0);
	for (uint32_t i = 0; link && link != head && i < LIST_MOST; i++) {
		uint64_t buffer = link - look->shape->at[BUFFER_LIST].offset;
		if (add_provided(state, id, word(look, buffer, BUFFER_ADDRESS), half(look, buffer, BUFFER_LENGTH),
				 small(look, buffer, BUFFER_NUMBER, 2), err) < 0)
			return -1;
		link = peek_word(look->peek, link, 0);
	}
	return 0;
}

static struct uring_region look_at_region(const struct look *look, uint64_t region)
{
	struct uring_region told = { .count = half(look, region, REGION_COUNT) };
	uint64_t pages = word(look, region, REGION_PAGES);
	if (!pages || !told.count || !(half(look, region, REGION_FLAGS) & REGION_IS_USERS))
		return told;
	told.first = peek_word(look->peek, pages, 0);
	told.last = peek_word(look->peek, pages, (told.count - 1) * 8ull);
	return told;
}

static int look_at_ring_of_buffers(const struct look *look, uint32_t id, uint64_t group, unsigned flags,
				   image_file_io_uring *state, struct uring_found *found, struct fsnap_error *err)
{
	u_int n = state->groups.groups_len;
	struct uring_region *regions = realloc(found->groups, (n + 1) * sizeof(*regions));
	if (regions)
		found->groups = regions;
	image_ring_group *more = regions ? append(&state->groups.groups_len, state->groups.groups_val, sizeof(*more),
						  err) : NULL;
	if (!more)
		return regions ? -1 : fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	state->groups.groups_val = more;
	regions[n] = look_at_region(look, group + look->shape->at[GROUP_REGION].offset);
	more[n] = (image_ring_group){
		.id = id,
		.entries = small(look, group, GROUP_ENTRIES, 2),
		.head = small(look, group, GROUP_HEAD, 2),
		.flags = (regions[n].first ? 0 : BUFFERS_OF_KERNEL) |
			 (flags & GROUP_IS_INCREMENTAL ? BUFFERS_INCREMENTAL : 0),
	};
	uint32_t kept = look->shape->has_left ? peek_half(look->peek, group, look->shape->left.offset) : 0;
	more[n].min_left = kept ? kept + 1 : 0;
	return 0;
}

static int look_at_groups(const struct look *look, image_file_io_uring *state, struct uring_found *found,
			  struct fsnap_error *err)
{
	uint64_t array = look->ring + look->shape->at[RING_GROUPS].offset, group;
	for (uint64_t id = 0; (group = next_entry(look, array, &id)); id++) {
		unsigned flags = small(look, group, GROUP_FLAGS, 2);
		int result = flags & GROUP_IS_RING ?
				     look_at_ring_of_buffers(look, (uint32_t)id, group, flags, state, found, err) :
				     look_at_list(look, (uint32_t)id, group, state, err);
		if (result < 0)
			return -1;
	}
	return 0;
}

/* --- credentials ------------------------------------------------------------------------ */

struct credentials {
	uint32_t ids[8]; /* uid, gid, suid, sgid, euid, egid, fsuid, fsgid: include/linux/cred.h */
	uint64_t inheritable, permitted, effective;
	uint32_t n_groups;
	uint32_t groups[64];
};

static struct credentials look_at_creds(const struct look *look, uint64_t cred)
{
	struct credentials told = { 0 };
	peek_bytes(look->peek, cred + look->shape->at[CRED_IDS].offset, told.ids, sizeof(told.ids));
	told.inheritable = word(look, cred, CRED_INHERITABLE);
	told.permitted = word(look, cred, CRED_PERMITTED);
	told.effective = word(look, cred, CRED_EFFECTIVE);
	uint64_t groups = word(look, cred, CRED_GROUPS);
	told.n_groups = half(look, groups, GROUPS_N);
	if (told.n_groups <= sizeof(told.groups) / sizeof(told.groups[0]))
		peek_bytes(look->peek, groups + look->shape->at[GROUPS_IDS].offset, told.groups, 4ul * told.n_groups);
	return told;
}

/* Numbers as the kernel has them: those of another user namespace are nobody's here. */
static bool same_creds(const struct credentials *a, const image_creds *b)
{
	for (unsigned i = 0; i < 4; i++) {
		static const unsigned order[] = { 0, 4, 2, 6 }; /* real, effective, saved, file system */
		if (a->ids[order[i]] != b->uid[i] || a->ids[order[i] + 1] != b->gid[i])
			return false;
	}
	return a->inheritable == b->inheritable && a->permitted == b->permitted && a->effective == b->effective &&
	       a->n_groups == b->groups.groups_len && a->n_groups <= sizeof(a->groups) / sizeof(a->groups[0]) &&
	       (!a->n_groups || memcmp(a->groups, b->groups.groups_val, 4ul * a->n_groups) == 0);
}

/* A thread of the process that has these; 0: none. */
static pid_t who_has(const struct process *process, const struct credentials *creds)
{
	for (size_t i = 0; i < process->n_tasks; i++)
		if (same_creds(creds, &process->tasks[i]->image.creds))
			return process->tasks[i]->tid;
	return 0;
}

static int look_at_personalities(const struct look *look, image_file_io_uring *state, struct uring_found *found,
				 struct fsnap_error *err)
{
	uint64_t array = look->ring + look->shape->at[RING_PERSONALITIES].offset, cred;
	state->next_personality = half(look, look->ring, RING_NEXT_PERSONALITY);
	for (uint64_t id = 0; (cred = next_entry(look, array, &id)); id++) {
		uint64_t *creds = realloc(found->personalities, (state->personalities.personalities_len + 1) * 8ul);
		if (creds)
			found->personalities = creds;
		u_int n = state->personalities.personalities_len;
		image_ring_personality *more = creds ? append(&state->personalities.personalities_len,
							      state->personalities.personalities_val, sizeof(*more), err) :
						       NULL;
		if (!more)
			return creds ? -1 : fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
		state->personalities.personalities_val = more;
		more[n].id = (unsigned)id;
		creds[n] = cred;
	}
	return 0;
}

pid_t uring_who_has(struct dump *dump, const struct uring_shape *shape, const struct process *process, uint64_t cred)
{
	const struct look look = { dump_peek(dump), shape, 0 };
	const struct credentials creds = look_at_creds(&look, cred);
	return who_has(process, &creds);
}

/* --- settings ----------------------------------------------------------------------------- */

static void copy_set(const struct look *look, uint64_t from, uint64_t bytes, u_quad_t to[4])
{
	peek_bytes(look->peek, from, to, bytes < 32 ? bytes : 32);
}

static void look_at_limits(const struct look *look, image_ring_limits *limits)
{
	const struct peek_member *at = look->shape->at;
	uint64_t from = look->ring + at[RING_LIMITS].offset;
	limits->set = small(look, from, LIMITS_SET, 1) != 0;
	if (!limits->set)
		return;
	copy_set(look, from + at[LIMITS_REGISTER].offset, at[LIMITS_SQE].offset - at[LIMITS_REGISTER].offset,
		 limits->register_ops);
	copy_set(look, from + at[LIMITS_SQE].offset, at[LIMITS_ALLOWED].offset - at[LIMITS_SQE].offset,
		 limits->sqe_ops);
	limits->flags_allowed = small(look, from, LIMITS_ALLOWED, 1);
	limits->flags_required = small(look, from, LIMITS_REQUIRED, 1);
}

static void look_at_napi(const struct look *look, image_file_io_uring *state)
{
	const struct uring_shape *shape = look->shape;
	enum { INACTIVE = 255 }; /* IO_URING_NAPI_TRACKING_INACTIVE */
	state->napi_mode = INACTIVE;
	if (!shape->has_napi)
		return;
	state->napi_us = (unsigned)(peek_word(look->peek, look->ring, shape->napi[0].offset) / 1000);
	state->napi_prefer = peek_half(look->peek, look->ring, shape->napi[1].offset) & 1;
	state->napi_mode = peek_half(look->peek, look->ring, shape->napi[2].offset) & 0xff;
}

static void look_at_settings(const struct look *look, image_file_io_uring *state)
{
	state->alloc_start = half(look, look->ring, RING_ALLOC_START);
	state->alloc_end = half(look, look->ring, RING_ALLOC_END);
	state->workers[0] = half(look, look->ring, RING_WORKERS);
	state->workers[1] = peek_half(look->peek, look->ring, look->shape->at[RING_WORKERS].offset + 4);
	state->clock = half(look, look->ring, RING_CLOCK);
	look_at_napi(look, state);
	look_at_limits(look, &state->limits);
}

/* One behind the other, as they were registered. */
static int look_at_buffers(const struct look *look, const image_file_io_uring *state, struct uring_found *found,
			   struct fsnap_error *err)
{
	u_int n = state->buffers.buffers_len;
	found->buffers = calloc(n + 1, sizeof(*found->buffers));
	if (!found->buffers)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	uint64_t nodes = word(look, look->ring + look->shape->at[RING_BUFFERS].offset, TABLE_NODES);
	for (u_int i = 0; i < n; i++) {
		uint64_t node = state->buffers.buffers_val[i].length ? peek_word(look->peek, nodes, 8ull * i) : 0;
		uint64_t buffer = node ? word(look, node, NODE_BUFFER) : 0;
		if (buffer) /* struct bio_vec: page, length, offset */
			peek_bytes(look->peek, buffer + look->shape->at[UBUF_PAGES].offset, &found->buffers[i],
				   sizeof(found->buffers[i]));
	}
	return 0;
}

uint64_t uring_page_of(struct dump *dump, const struct uring_shape *shape, int ring, unsigned number)
{
	const struct look look = { dump_peek(dump), shape, peek_private(dump_peek(dump), ring) };
	uint64_t nodes = word(&look, look.ring + shape->at[RING_BUFFERS].offset, TABLE_NODES);
	uint64_t node = peek_word(look.peek, nodes, 8ull * number);
	return node ? peek_word(look.peek, word(&look, node, NODE_BUFFER), shape->at[UBUF_PAGES].offset) : 0;
}

int uring_look(struct dump *dump, const struct uring_shape *shape, const struct async_ring *facts,
	       image_file_io_uring *state, struct uring_found *found, struct fsnap_error *err)
{
	const struct look look = { dump_peek(dump), shape, facts->identity };
	look_at_settings(&look, state);
	state->limits.in_force = facts->restricted;
	found->rings = look_at_region(&look, look.ring + shape->at[RING_RINGS].offset);
	found->sqes = look_at_region(&look, look.ring + shape->at[RING_SQES].offset);
	found->param = word(&look, look.ring + shape->at[RING_PARAM].offset, REGION_PAGES) != 0;
	found->zero_copy = shape->has_zero_copy &&
			   peek_word(look.peek, look.ring, shape->zero_copy.offset + shape->at[XA_HEAD].offset) != 0;
	found->creds = facts->flags & IORING_SETUP_SQPOLL ? word(&look, look.ring, RING_CREDS) : 0;
	state->sq_thread = facts->flags & IORING_SETUP_SQPOLL ? word(&look, look.ring, RING_POLLER) : 0;
	if (look_at_groups(&look, state, found, err) < 0 || look_at_personalities(&look, state, found, err) < 0)
		return -1;
	return look_at_buffers(&look, state, found, err);
}
