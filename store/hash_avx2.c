/* Compiled with the instruction set in its name (CMakeLists.txt). */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/hash.h"

uint64_t hash_avx2(const void *bytes, size_t length)
{
	return XXH3_64bits(bytes, length);
}
