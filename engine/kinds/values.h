/*
 * values.h - filling the variable-length members of image.x structs.
 *
 * Their memory is malloc'ed and ends in xdr_free.  A string is never NULL: XDR
 * cannot write one.
 */
#ifndef ENGINE_KINDS_VALUES_H
#define ENGINE_KINDS_VALUES_H

#include <stdlib.h>
#include <string.h>

#include "store/error.h"

static inline int no_memory(struct fsnap_error *err)
{
	return fail(err, FSNAP_E_NOMEM, 0, "out of memory while saving descriptors");
}

static inline int set_string(char **member, const char *text, struct fsnap_error *err)
{
	*member = strdup(text);
	return *member ? 0 : no_memory(err);
}

/* For `opaque x<>`: set_bytes(&state->x.x_len, &state->x.x_val, ...). */
static inline int set_bytes(unsigned *len, char **val, const void *data, size_t size,
			    struct fsnap_error *err)
{
	*len = 0;
	*val = NULL;
	if (!size)
		return 0;
	*val = malloc(size);
	if (!*val)
		return no_memory(err);
	memcpy(*val, data, size);
	*len = (unsigned)size;
	return 0;
}

/* Room for one more in `name x<>`: evaluates to its zeroed address, NULL when memory is out. */
#define append(list, member)                                                              \
	({                                                                                \
		void *moved = realloc((list).member##_val,                                \
				      ((list).member##_len + 1) * sizeof(*(list).member##_val)); \
		__typeof__((list).member##_val) slot = NULL;                              \
		if (moved) {                                                              \
			(list).member##_val = moved;                                      \
			slot = &(list).member##_val[(list).member##_len++];               \
			memset(slot, 0, sizeof(*slot));                                   \
		}                                                                         \
		slot;                                                                     \
	})

#endif
