/*
 * File mappings: of a private one, the pages that were written to keep what was
 * written and the others still show the file; a shared one is still the file,
 * in both directions; a mapping outlives its descriptor.
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 12 };

int main(void)
{
	char *path = specimen_path("mapped");
	static char content[PAGES * PAGE], page[PAGE];
	pattern_fill(content, sizeof(content), 5);
	int fd = MUST(open(path, O_RDWR | O_CREAT, 0600));
	MUST(write(fd, content, sizeof(content)));
	char *shared = MUST(mmap(NULL, sizeof(content), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	char *own = MUST(
		mmap(NULL, (PAGES - 2) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 2 * PAGE));
	char *readonly = MUST(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 3 * PAGE));
	pattern_fill(own + PAGE, PAGE, 100);
	memset(own + 4 * PAGE, 0, PAGE); /* zeroes written over content are content */
	MUST(close(fd));

	while (specimen_round()) {
		specimen_ready();
		expect_pattern("written page of the private mapping", own + PAGE, PAGE, 100);
		expect_zero("zeroed page of the private mapping", own + 4 * PAGE, PAGE);
		expect_bytes("unwritten page of the private mapping", content + 2 * PAGE, own,
			     PAGE);
		expect_bytes("last page of the private mapping", content + (PAGES - 1) * PAGE,
			     own + (PAGES - 3) * PAGE, PAGE);
		expect_bytes("shared mapping", content, shared, sizeof(content));

		fd = MUST(open(path, O_RDWR));
		pattern_fill(page, PAGE, 200 + (uint64_t)specimen_number());
		memcpy(shared + 3 * PAGE, page, PAGE);
		memcpy(content + 3 * PAGE, page, PAGE);
		expect_bytes("the other shared mapping sees it", page, readonly, PAGE);
		MUST(pread(fd, page, PAGE, 3 * PAGE));
		expect_bytes("the file sees writes to memory", content + 3 * PAGE, page, PAGE);
		MUST(pwrite(fd, "written", 7, 6 * PAGE));
		memcpy(content + 6 * PAGE, "written", 7);
		expect_bytes("memory sees writes to the file", "written", shared + 6 * PAGE, 7);
		MUST(pread(fd, page, PAGE, 3 * PAGE));
		expect_bytes("the file has not got private writes", content + 3 * PAGE, page, PAGE);
		MUST(close(fd));
	}
	return specimen_end();
}
