#define _GNU_SOURCE
#include "restorer/pending.h"

#include <string.h>
#include <sys/mman.h>

/* --- room, without an allocator ---------------------------------------------------------- */

/* Room for one more item, zeroed when it is first had; the array may move. */
static int grow(void *array, size_t n, size_t *room, size_t size)
{
	void **items = array;
	if (n < *room)
		return 0;
	size_t more = *room ? 2 * *room : 4096 / size + 64;
	void *moved = *room ? mremap(*items, *room * size, more * size, MREMAP_MAYMOVE) :
			      mmap(NULL, more * size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (moved == MAP_FAILED)
		return -1;
	*items = moved;
	*room = more;
	return 0;
}

int pending_open(struct pending *pending, const struct image *image)
{
	uint64_t blocks = image_blocks(image);
	*pending = (struct pending){ .image = image };
	void *first = mmap(NULL, (blocks + 1) * sizeof(uint32_t), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (first == MAP_FAILED)
		return -1;
	pending->first = first;
	memset(first, 0xff, (blocks + 1) * sizeof(uint32_t)); /* PENDING_NONE */
	return 0;
}

/* --- segments ------------------------------------------------------------------------------ */

static bool has_bit(const struct segment *segment, uint32_t n)
{
	return segment->wanted[n / 64] >> n % 64 & 1;
}

static uint32_t count_wanted(const struct segment *segment)
{
	uint32_t n = 0;
	for (int i = 0; i < 4; i++)
		n += (uint32_t)__builtin_popcountll(segment->wanted[i]);
	return n;
}

/* Adds a segment to its block; the caller has it in the index of its space. */
static uint32_t new_segment(struct pending *pending, const struct segment *segment)
{
	if (pending->n >= PENDING_NONE || grow(&pending->segments, pending->n, &pending->room, sizeof(*segment)) < 0)
		return PENDING_NONE;
	uint32_t *list = &pending->first[segment->block];
	struct segment *added = &pending->segments[pending->n];
	*added = *segment;
	added->next = *list;
	return *list = (uint32_t)pending->n++;
}

static int append(struct pending *pending, struct pending_space *space, const struct segment *segment)
{
	uint32_t id = new_segment(pending, segment);
	if (id == PENDING_NONE || grow(&space->index, space->n, &space->room, sizeof(*space->index)) < 0)
		return -1;
	space->index[space->n++] = id;
	uint32_t wanted = count_wanted(segment);
	space->left += wanted;
	pending->left += wanted;
	return 0;
}

static void clear(struct pending *pending, struct segment *segment, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		if (!has_bit(segment, i))
			continue;
		segment->wanted[i / 64] &= ~(1ull << i % 64);
		pending->spaces[segment->space].left--;
		pending->left--;
	}
}

/* --- spaces -------------------------------------------------------------------------------- */

static struct pending_space *new_space(struct pending *pending)
{
	if (grow(&pending->spaces, pending->n_spaces, &pending->space_room, sizeof(*pending->spaces)) < 0)
		return NULL;
	return &pending->spaces[pending->n_spaces++];
}

int64_t pending_add(struct pending *pending, const struct page_run *runs, size_t n)
{
	struct pending_space *space = new_space(pending);
	if (!space)
		return -1;
	uint32_t number = (uint32_t)pending->n_spaces - 1;
	for (size_t i = 0; i < n; i++)
		for (uint64_t done = 0; done < runs[i].npages;) {
			struct segment segment = { .page = runs[i].page + done, .space = number };
			segment.block = image_block_of(pending->image, runs[i].at + done, &segment.in);
			uint64_t left = runs[i].npages - done, room = STORE_BLOCK_PAGES - segment.in;
			segment.npages = (uint32_t)(left < room ? left : room);
			for (uint32_t bit = 0; bit < segment.npages; bit++)
				segment.wanted[bit / 64] |= 1ull << bit % 64;
			if (append(pending, space, &segment) < 0)
				return -1;
			done += segment.npages;
		}
	return number;
}

int64_t pending_fork(struct pending *pending, uint32_t parent)
{
	if (!new_space(pending))
		return -1;
	uint32_t number = (uint32_t)pending->n_spaces - 1;
	struct pending_space *space = &pending->spaces[number];
	for (size_t i = 0; i < pending->spaces[parent].n; i++) {
		struct segment segment = pending->segments[pending->spaces[parent].index[i]];
		segment.space = number;
		if (count_wanted(&segment) && append(pending, space, &segment) < 0)
			return -1;
	}
	return number;
}

/* Place in the index of the first segment that ends behind `page`. */
static size_t place_of(const struct pending *pending, const struct pending_space *space, uint64_t page)
{
	size_t low = 0, high = space->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct segment *segment = &pending->segments[space->index[middle]];
		if (segment->page + segment->npages <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint32_t pending_find(const struct pending *pending, uint32_t number, uint64_t page)
{
	const struct pending_space *space = &pending->spaces[number];
	size_t place = place_of(pending, space, page);
	if (place == space->n)
		return PENDING_NONE;
	const struct segment *segment = &pending->segments[space->index[place]];
	return segment->page <= page && has_bit(segment, (uint32_t)(page - segment->page)) ? space->index[place] :
											    PENDING_NONE;
}

uint32_t pending_next(const struct segment *segment, uint32_t from, uint32_t most, uint32_t *first)
{
	uint32_t n = 0;
	while (from < segment->npages && !has_bit(segment, from))
		from++;
	*first = from;
	while (n < most && from + n < segment->npages && has_bit(segment, from + n))
		n++;
	return n;
}

void pending_arrived(struct pending *pending, uint32_t segment, uint32_t first, uint32_t n)
{
	clear(pending, &pending->segments[segment], first, n);
}

void pending_forget(struct pending *pending, uint32_t number, uint64_t page, uint64_t end)
{
	const struct pending_space *space = &pending->spaces[number];
	for (size_t i = place_of(pending, space, page); i < space->n; i++) {
		struct segment *segment = &pending->segments[space->index[i]];
		if (segment->page >= end)
			break;
		uint64_t from = segment->page > page ? segment->page : page;
		uint64_t to = segment->page + segment->npages < end ? segment->page + segment->npages : end;
		clear(pending, segment, (uint32_t)(from - segment->page), (uint32_t)(to - from));
	}
}

/* --- moving ------------------------------------------------------------------------------------ */

/* No segment lies on both sides of `page`. */
static int cut_at(struct pending *pending, uint32_t number, uint64_t page)
{
	size_t place = place_of(pending, &pending->spaces[number], page);
	struct pending_space *space = &pending->spaces[number];
	if (place == space->n || pending->segments[space->index[place]].page >= page)
		return 0;
	struct segment *left = &pending->segments[space->index[place]];
	struct segment right = *left;
	uint32_t n = (uint32_t)(page - left->page);
	right.page += n;
	right.in += n;
	right.npages -= n;
	memset(right.wanted, 0, sizeof(right.wanted));
	for (uint32_t i = n; i < left->npages; i++)
		if (has_bit(left, i)) {
			right.wanted[(i - n) / 64] |= 1ull << (i - n) % 64;
			left->wanted[i / 64] &= ~(1ull << i % 64);
		}
	left->npages = n;
	uint32_t id = new_segment(pending, &right);
	if (id == PENDING_NONE || grow(&space->index, space->n, &space->room, sizeof(*space->index)) < 0)
		return -1;
	memmove(&space->index[place + 2], &space->index[place + 1],
		(space->n - place - 1) * sizeof(*space->index));
	space->index[place + 1] = id;
	space->n++;
	return 0;
}

static void reverse(uint32_t *list, size_t from, size_t to)
{
	for (; from + 1 < to; from++, to--) {
		uint32_t last = list[to - 1];
		list[to - 1] = list[from];
		list[from] = last;
	}
}

/* Entries [from, middle) and [middle, to) change places. */
static void rotate(uint32_t *list, size_t from, size_t middle, size_t to)
{
	reverse(list, from, middle);
	reverse(list, middle, to);
	reverse(list, from, to);
}

/* Segments of [page, end), of which nothing is wanted, leave the index. */
static void drop(struct pending *pending, struct pending_space *space, uint64_t page, uint64_t end)
{
	size_t first = place_of(pending, space, page), behind = place_of(pending, space, end);
	memmove(&space->index[first], &space->index[behind], (space->n - behind) * sizeof(*space->index));
	space->n -= behind - first;
}

int pending_move(struct pending *pending, uint32_t number, uint64_t from, uint64_t to, uint64_t n)
{
	if (cut_at(pending, number, from) < 0 || cut_at(pending, number, from + n) < 0 ||
	    cut_at(pending, number, to) < 0 || cut_at(pending, number, to + n) < 0)
		return -1;
	struct pending_space *space = &pending->spaces[number];
	pending_forget(pending, number, to, to + n);
	drop(pending, space, to, to + n);
	size_t first = place_of(pending, space, from), behind = place_of(pending, space, from + n);
	size_t target = place_of(pending, space, to);
	for (size_t i = first; i < behind; i++)
		pending->segments[space->index[i]].page += to - from;
	if (target <= first)
		rotate(space->index, target, first, behind);
	else
		rotate(space->index, first, behind, target);
	return 0;
}
