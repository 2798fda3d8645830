/* parallel.h - split a loop over the machine's cores. */
#ifndef STORE_PARALLEL_H
#define STORE_PARALLEL_H

#include <stdint.h>

/* Calls fn(arg, first, n) for pieces that make up [0, total), none smaller than `grain` but the
 * last; in this thread and as many others as there are cores. Returns when all are done. */
void parallel_for(uint64_t total, uint64_t grain,
		  void (*fn)(void *arg, uint64_t first, uint64_t n), void *arg);

#endif
