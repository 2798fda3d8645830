/* The library's own constant, which only its source has a name for. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/hash.h"

const uint8_t *hash_secret(void)
{
	_Static_assert(sizeof(XXH3_kSecret) == HASH_SECRET, "the secret of XXH3");
	return XXH3_kSecret;
}
