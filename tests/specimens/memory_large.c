/*
 * A large region (64 MiB, and a sparse gigabyte with a page here and there,
 * and in one place every second one) comes back complete, and the sparse one does not become dense: memory that
 * was never touched costs nothing after a restore either.  Whoever helped to
 * fill it is gone.
 */
#include "specimen.h"

#include <sys/mman.h>

enum { MIB = 1 << 20, PAGE = 4096 };
static const size_t dense_size = 64 * MIB, sparse_size = 1024u * MIB, stride = 16 * MIB + PAGE;
static const size_t thick = 600u * MIB, thick_end = 601u * MIB;

static long resident_kib(void)
{
	char text[64];
	return atol(proc_field("/proc/self/status", "RssAnon", text, sizeof(text)));
}

int main(void)
{
	char *dense = MUST(
		mmap(NULL, dense_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	char *sparse = MUST(mmap(NULL, sparse_size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	MUST(madvise(sparse, sparse_size, MADV_NOHUGEPAGE));
	pattern_fill(dense, dense_size, 1);
	for (size_t at = 0; at < sparse_size; at += stride)
		pattern_fill(sparse + at, PAGE, at);
	for (size_t at = thick; at < thick_end; at += 2 * PAGE)
		pattern_fill(sparse + at, PAGE, at);
	long before = resident_kib();
	char text[64];

	while (specimen_round()) {
		specimen_ready();
		expect_between("threads", 1, 1, atol(proc_field("/proc/self/status", "Threads", text, sizeof(text))));
		expect_pattern("dense region", dense, dense_size, 1);
		expect_between("resident memory (KiB)", before - 1024, before + 4096,
			       resident_kib());
		for (size_t at = 0; at < sparse_size; at += stride)
			expect_pattern("page of the sparse region", sparse + at, PAGE, at);
		for (size_t at = thick; at < thick_end; at += 2 * PAGE)
			expect_pattern("every second page", sparse + at, PAGE, at);
		expect_zero("hole of the sparse region", sparse + sparse_size - PAGE, PAGE);
		MUST(madvise(sparse + sparse_size - PAGE, PAGE, MADV_DONTNEED));
	}
	return specimen_end();
}
