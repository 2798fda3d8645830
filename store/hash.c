#include "store/hash.h"

#include <xxhash.h>

uint64_t hash_bytes(const void *bytes, size_t length)
{
	if (__builtin_cpu_supports("avx512f"))
		return hash_avx512(bytes, length);
	if (__builtin_cpu_supports("avx2"))
		return hash_avx2(bytes, length);
	return XXH3_64bits(bytes, length);
}
