/*
 * numbers.h - finding things by a number the kernel gave them (PIDs): a table that a tree of
 * thousands does not slow down.
 */
#ifndef ENGINE_NUMBERS_H
#define ENGINE_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

#define NUMBERS_NONE SIZE_MAX

struct numbers { /* zeroed: empty */
	struct numbers_slot *slots;
	size_t room, used;
};

/* The value of a number, positive, becomes this. -1: there is no memory. */
int numbers_put(struct numbers *numbers, int number, size_t value);
/* NUMBERS_NONE: the number is not there. */
size_t numbers_get(const struct numbers *numbers, int number);
void numbers_free(struct numbers *numbers);

#endif
