/*
 * sized.h - structs of the public interface, which begin with their size and grow at their end: of callers that know
 * more or less of one than we do, what both know is taken.
 *
 * Nothing is allocated and no lock is taken: fsnap_checkpoint() may be called anywhere.
 */
#ifndef ENGINE_SIZED_H
#define ENGINE_SIZED_H

#include <stddef.h>
#include <string.h>

static inline size_t sized_common(const void *theirs, size_t ours)
{
	size_t size;
	memcpy(&size, theirs, sizeof(size)); /* the first member of all of them */
	return size < ours ? size : ours;
}

/* What the caller has given, into a struct of `size` bytes; the rest of it is zero. given may be NULL. */
static inline void sized_take(void *own, size_t size, const void *given)
{
	memset(own, 0, size);
	if (given)
		memcpy(own, given, sized_common(given, size));
	memcpy(own, &size, sizeof(size));
}

/* What we have to tell, into the caller's, whose size stays what it says. to may be NULL. */
static inline void sized_tell(void *to, const void *own, size_t size)
{
	size_t common = to ? sized_common(to, size) : 0;
	if (common > sizeof(size))
		memcpy((char *)to + sizeof(size), (const char *)own + sizeof(size), common - sizeof(size));
}

#endif
