/*
 * uring_owner.c - what the kernel ties to the thread or the memory that asks for it: registered buffers, provided ones
 * in memory of the program's, credentials; rings of one thread (it enables them, and it alone can then move their
 * positions), ring descriptors registered with a thread.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

#define REGISTER_PBUF_RING 22 /* Linux 5.19 */

static void register_buffers(const image_file_io_uring *state, struct plans *plans, uint32_t task,
			     int fd)
{
	u_int n = state->buffers.buffers_len;
	if (n == 0)
		return;
	uint32_t vectors = plans_data(plans, NULL, n * sizeof(struct iovec), 8);
	uint32_t tags = plans_data(plans, NULL, n * sizeof(uint64_t), 8);
	uint32_t order = plans_data(plans, NULL, sizeof(struct io_uring_rsrc_register), 8);
	for (u_int i = 0; i < n; i++) {
		const image_ring_buffer *buffer = &state->buffers.buffers_val[i];
		struct iovec vector = { (void *)buffer->address, buffer->length };
		plans_set(plans, vectors + i * sizeof(vector), &vector, sizeof(vector));
		plans_set(plans, tags + i * 8, &buffer->tag, 8);
	}
	struct io_uring_rsrc_register what = { .nr = n };
	plans_set(plans, order, &what, sizeof(what));
	plans_pointer(plans, order + offsetof(struct io_uring_rsrc_register, data), vectors);
	plans_pointer(plans, order + offsetof(struct io_uring_rsrc_register, tags), tags);
	plan_note(plans, "%u buffers of io_uring", n);
	plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(IORING_REGISTER_BUFFERS2),
		  DATA(order), IMM(sizeof(what)));
}

static void register_groups(const image_file_io_uring *state, struct plans *plans, uint32_t task, int fd)
{
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		const image_ring_group *group = &state->groups.groups_val[i];
		struct io_uring_buf_reg order = uring_group_order(group);
		if (group->flags & BUFFERS_OF_KERNEL)
			continue;
		plan_note(plans, "provided buffers %u of io_uring", group->id);
		plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(REGISTER_PBUF_RING),
			  DATA(plans_data(plans, &order, sizeof(order), 8)), IMM(1));
	}
}

/* Numbers are given out one after the other: those between go again. */
static void register_personalities(struct restore *restore, const image_file_io_uring *state, struct plans *plans,
				   uint32_t task, int fd)
{
	const image_ring_personality *them = state->personalities.personalities_val;
	u_int n = state->personalities.personalities_len, at = 0;
	unsigned end = n && state->next_personality <= them[n - 1].id ? them[n - 1].id + 1 : state->next_personality;
	for (unsigned id = 1; id < end; id++) {
		bool wanted = at < n && them[at].id == id;
		uint32_t who = wanted ? restore_deputy(restore, plans, task, them[at].tid) : task;
		plan_note(plans, "personality %u of io_uring", id);
		plan_call(plans, who, SYS_io_uring_register, IMM(fd), IMM(IORING_REGISTER_PERSONALITY), IMM(0),
			  IMM(0));
		plan_accept_equal(plans, id);
		if (wanted)
			restore_deputy_done(plans, task, who);
		else
			plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(IORING_UNREGISTER_PERSONALITY),
				  IMM(0), IMM(id));
		at += wanted;
	}
}

/* What belongs to the memory, or the credentials, of who registers it. */
static void register_own(struct restore *restore, const image_file_io_uring *state, struct plans *plans, uint32_t task,
			 int fd)
{
	register_buffers(state, plans, task, fd);
	register_groups(state, plans, task, fd);
	register_personalities(restore, state, plans, task, fd);
}

pid_t uring_settler(const void *in)
{
	const image_file_io_uring *state = in;
	return state->owner ? state->owner : state->sq_owner;
}

void uring_settle_late(struct restore *restore, const image_file *file, const void *in,
		       struct plans *plans, uint32_t task, int fd)
{
	(void)file;
	const image_file_io_uring *state = in;
	if (!uring_has_issuer(state) || uring_is_own(state))
		register_own(restore, state, plans, task, fd);
}

/* --- rings of one thread ------------------------------------------------------------------ */

struct way { /* a ring, as its thread has it */
	struct plans *plans;
	uint32_t task;
	int fd;
	const struct ring *ring;
	uint64_t rings, sqes; /* addresses */
};

static void put_word(const struct way *way, uint32_t offset, uint32_t value)
{
	plan_copy(way->plans, way->task, IMM(way->rings + offset),
		  DATA(plans_data(way->plans, &value, sizeof(value), 4)), sizeof(value));
}

/* Takes a step, *at is the position; completions are thrown away. */
static void take(const struct way *way, const struct uring_step *step, uint32_t *at, uint32_t *told)
{
	const struct io_uring_params *p = &way->ring->params;
	uint32_t all = plans_data(way->plans, NULL, way->ring->sqes_size, 8), n = step->n;
	for (uint32_t i = 0; i < p->sq_entries; i++)
		plans_set(way->plans, all + i * way->ring->sqe, &step->sqe, sizeof(step->sqe));
	plan_copy(way->plans, way->task, IMM(way->sqes), DATA(all), way->ring->sqes_size);
	while (n) {
		uint32_t now = n < p->sq_entries ? n : p->sq_entries;
		*at += now;
		put_word(way, p->sq_off.tail, *at);
		plan_call(way->plans, way->task, SYS_io_uring_enter, IMM(way->fd), IMM(now), IMM(0),
			  IMM(IORING_ENTER_GETEVENTS), IMM(0), IMM(0));
		plan_accept_equal(way->plans, now);
		n -= now;
		*told += step->sqe.flags & IOSQE_CQE_SKIP_SUCCESS ? 0 : now;
		put_word(way, p->cq_off.head, *told);
	}
}

/* A socket under this number; returns the slot of its other end. */
static uint32_t open_socket(const struct way *way, int number)
{
	struct plans *plans = way->plans;
	uint32_t pair = plans_data(plans, NULL, 16, 8);
	plan_call(plans, way->task, SYS_socketpair, IMM(AF_UNIX), IMM(SOCK_STREAM), IMM(0), DATA(pair));
	/* Each is read with what follows it; numbers have 32 bits in these calls. */
	uint32_t one = plan_load(plans, way->task, DATA(pair));
	uint32_t other = plan_load(plans, way->task, DATA(pair + 4));
	plan_call(plans, way->task, SYS_dup3, SLOT(one), IMM(number), IMM(0));
	plan_call(plans, way->task, SYS_close, SLOT(one));
	return other;
}

static void put_group(const struct way *way, const image_ring_group *group, uint32_t data)
{
	struct plans *plans = way->plans;
	size_t size = uring_group_bytes(group);
	if (!(group->flags & BUFFERS_OF_KERNEL)) {
		plan_copy(plans, way->task, IMM(group->address), DATA(data), size);
		return;
	}
	plan_call(plans, way->task, SYS_mmap, IMM(0), IMM(size), IMM(PROT_READ | PROT_WRITE), IMM(MAP_SHARED),
		  IMM(way->fd), IMM(OFF_PBUF_RING | (uint64_t)group->id << OFF_PBUF_SHIFT));
	uint32_t at = plan_result(plans);
	plan_copy(plans, way->task, SLOT(at), DATA(data), size);
	plan_call(plans, way->task, SYS_munmap, SLOT(at), IMM(size));
}

/* Where all its entries lead to the same byte, which anybody may write. */
static void bait_group(const struct way *way, const image_ring_group *group)
{
	struct plans *plans = way->plans;
	cleanup_free struct io_uring_buf *entries = malloc(uring_group_bytes(group));
	uint32_t byte = plans_data(plans, NULL, 8, 8);
	if (!entries)
		return; /* what follows fails */
	uring_bait(group, 0, entries);
	uint32_t data = plans_data(plans, entries, uring_group_bytes(group), 8);
	for (uint32_t i = 0; i < group->entries; i++)
		plans_pointer(plans, data + i * (uint32_t)sizeof(*entries), byte);
	put_group(way, group, data);
}

static void use(struct restore *restore, const struct way *way, const image_file_io_uring *state, unsigned file_id)
{
	size_t n;
	uint32_t more, at = 0, told = 0, feeder = 0;
	bool chosen = uring_has_chosen(state);
	int socket = chosen ? restore_spare_number(restore, file_id) : -1;
	cleanup_free struct uring_step *steps = uring_steps(state, socket, &n, &more);
	if (chosen)
		feeder = open_socket(way, socket);
	for (u_int i = 0; i < state->groups.groups_len && chosen; i++)
		bait_group(way, &state->groups.groups_val[i]);
	for (size_t i = 0; steps && i < n; i++) {
		uint32_t bytes = steps[i].bytes;
		if (bytes) {
			plan_call(way->plans, way->task, SYS_write, SLOT(feeder),
				  DATA(plans_data(way->plans, NULL, bytes, 8)), IMM(bytes));
			plan_accept_equal(way->plans, bytes);
		}
		take(way, &steps[i], &at, &told);
	}
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		const image_ring_group *group = &state->groups.groups_val[i];
		put_group(way, group, plans_data(way->plans, group->memory.memory_val, uring_group_bytes(group), 8));
	}
	if (!chosen)
		return;
	plan_call(way->plans, way->task, SYS_close, IMM(socket));
	plan_call(way->plans, way->task, SYS_close, SLOT(feeder));
}

static void enable(struct restore *restore, const image_file *file,
		   const image_file_io_uring *state, struct plans *plans, uint32_t task, int fd)
{
	const struct made *made = uring_made(restore, file->id);
	plan_note(plans, "io_uring of thread %d", state->submitter);
	plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(IORING_REGISTER_ENABLE_RINGS),
		  IMM(0), IMM(0));
	if (state->sq_head == 0 || !uring_is_used_by_issuer(state) || !made)
		return;
	struct way way = { plans, task, fd, &made->ring, state->rings_address, state->sqes_address };
	if (!(state->flags & SETUP_NO_MMAP)) {
		way.rings = restore_mapped(restore, state->submitter, file->id, IORING_OFF_SQ_RING, STORE_PAGE);
		way.sqes = restore_mapped(restore, state->submitter, file->id, IORING_OFF_SQES, made->ring.sqes_size);
	}
	/* Wherever it tells of completions, now it does not. */
	put_word(&way, made->ring.params.cq_off.flags, IORING_CQ_EVENTFD_DISABLED);
	use(restore, &way, state, file->id);
}

static void register_numbers(const image_file_io_uring *state, struct plans *plans, uint32_t task, int fd, pid_t tid)
{
	for (u_int i = 0; i < state->registered.registered_len; i++) {
		const image_ring_index *index = &state->registered.registered_val[i];
		struct io_uring_rsrc_update update = { .offset = index->index,
						       .data = (unsigned)fd };
		if (index->tid != tid)
			continue;
		plan_note(plans, "registered descriptor %u of io_uring", index->index);
		plan_call(plans, task, SYS_io_uring_register, IMM(fd),
			  IMM(IORING_REGISTER_RING_FDS),
			  DATA(plans_data(plans, &update, sizeof(update), 8)), IMM(1));
		plan_accept_equal(plans, 1);
	}
}

/* Limits of workers are told by, and hold for, threads that have had to do with the ring: this one has, then. */
static void meet(const image_file_io_uring *state, struct plans *plans, uint32_t task, int fd)
{
	struct io_uring_rsrc_update update = { .offset = -1u, .data = (unsigned)fd };
	if (!state->workers[0] && !state->workers[1])
		return;
	uint32_t data = plans_data(plans, &update, sizeof(update), 8);
	plan_note(plans, "limits of io_uring's workers");
	plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(IORING_REGISTER_RING_FDS), DATA(data), IMM(1));
	plan_accept_equal(plans, 1);
	plan_copy(plans, task, DATA(data + offsetof(struct io_uring_rsrc_update, data)),
		  DATA(plans_data(plans, NULL, sizeof(update.data), 8)), sizeof(update.data));
	plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(IORING_UNREGISTER_RING_FDS), DATA(data), IMM(1));
	plan_accept_equal(plans, 1);
}

/* Restrictions come into force when it is enabled. */
void uring_settle_task(struct restore *restore, const image_file *file, const void *in,
		       struct plans *plans, uint32_t task, int fd, pid_t tid)
{
	const image_file_io_uring *state = in;
	if (uring_is_own(state))
		return;
	if (state->submitter == tid)
		register_own(restore, state, plans, task, fd);
	if (!uring_has_issuer(state) || state->submitter == tid)
		meet(state, plans, task, fd);
	register_numbers(state, plans, task, fd, tid);
	if (state->submitter == tid)
		enable(restore, file, state, plans, task, fd);
}

void uring_settle_parked(struct restore *restore, const image_file *file, const void *in,
			 struct plans *plans, uint32_t task, int fd, pid_t tid)
{
	const image_file_io_uring *state = in;
	if (!uring_is_own(state))
		return;
	register_numbers(state, plans, task, fd, tid);
	if (state->submitter == tid)
		enable(restore, file, state, plans, task, fd);
}
