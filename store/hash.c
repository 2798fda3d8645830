#include "store/hash.h"

#include <sys/platform/x86.h>
#include <xxhash.h>

/* As the C library has found out: __builtin_cpu_supports() would ask the CPU again at every start, thirteen times,
 * and each time a virtual machine leaves for its host (CPUID, 4 us). */
uint64_t hash_bytes(const void *bytes, size_t length)
{
	if (CPU_FEATURE_ACTIVE(AVX512F))
		return hash_avx512(bytes, length);
	if (CPU_FEATURE_ACTIVE(AVX2))
		return hash_avx2(bytes, length);
	return XXH3_64bits(bytes, length);
}
