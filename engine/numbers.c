#include "engine/numbers.h"

#include <stdlib.h>

/* Open addressing, at most half full; number 0 marks a free slot. */
struct numbers_slot {
	int number;
	size_t value;
};

static struct numbers_slot *find(struct numbers_slot *slots, size_t room, int number)
{
	size_t at = (unsigned)number * 2654435761u & (room - 1);
	while (slots[at].number && slots[at].number != number)
		at = (at + 1) & (room - 1);
	return &slots[at];
}

static int make_room(struct numbers *numbers)
{
	size_t room = numbers->room ? 2 * numbers->room : 16;
	struct numbers_slot *slots = calloc(room, sizeof(*slots));
	if (!slots)
		return -1;
	for (size_t i = 0; i < numbers->room; i++)
		if (numbers->slots[i].number)
			*find(slots, room, numbers->slots[i].number) = numbers->slots[i];
	free(numbers->slots);
	numbers->slots = slots;
	numbers->room = room;
	return 0;
}

int numbers_put(struct numbers *numbers, int number, size_t value)
{
	struct numbers_slot *slot = numbers->room ? find(numbers->slots, numbers->room, number) : NULL;
	if (!slot || (!slot->number && 2 * (numbers->used + 1) > numbers->room)) {
		if (make_room(numbers) < 0)
			return -1;
		slot = find(numbers->slots, numbers->room, number);
	}
	numbers->used += !slot->number;
	*slot = (struct numbers_slot){ number, value };
	return 0;
}

size_t numbers_get(const struct numbers *numbers, int number)
{
	if (!numbers->room || number <= 0)
		return NUMBERS_NONE;
	const struct numbers_slot *slot = find(numbers->slots, numbers->room, number);
	return slot->number ? slot->value : NUMBERS_NONE;
}

void numbers_free(struct numbers *numbers)
{
	free(numbers->slots);
	*numbers = (struct numbers){ 0 };
}
