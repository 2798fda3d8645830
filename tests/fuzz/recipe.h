/*
 * recipe.h - an input of fuzz_records.c: this, then metadata, then hints, then the page index.
 */
#ifndef RECIPE_H
#define RECIPE_H

#include <stdint.h>

struct recipe {
	uint32_t records, hint_records; /* how many there are said to be */
	uint32_t metadata, hints;	/* bytes; the index is what is left */
};

#endif
