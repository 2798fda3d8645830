/*
 * Pages that are in swap hold what they held: private ones, those of anonymous shared
 * memory, those that a child shares copy-on-write, and those of a locked-on-fault region
 * that were thrown out. A swap file is made for the purpose.
 *
 * harness: root differs=SwapTotal
 */
#include "specimen_memory.h"

#include <sys/sendfile.h>
#include <sys/swap.h>
#include <sys/wait.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

enum { PAGES = 300, SWAP_MIB = 16 };

static char *swap_path;

static void make_swap(void)
{
	static char block[MIB];
	swap_path = specimen_path("swap");
	int fd = MUST(open(swap_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	/* The header of swap space (include/linux/swap.h): version, last page, and the magic at the page's end. */
	uint32_t header[2] = { 1, SWAP_MIB * 256 - 1 };
	memcpy(block + 1024, header, sizeof(header));
	memcpy(block + PAGE - 10, "SWAPSPACE2", 10);
	for (int i = 0; i < SWAP_MIB; i++) {
		MUST(write(fd, block, MIB));
		memset(block, 0, PAGE);
	}
	MUST(fsync(fd));
	MUST(close(fd));
	if (swapon(swap_path, 0) < 0)
		specimen_skip("swapon: %s", strerror(errno));
}

static bool in_swap(const char *at)
{
	return pagemap_entry(at) >> 62 & 1;
}

/* How many pages of the area are in swap now. */
static int put_out(char *area)
{
	int n = 0;
	for (int attempt = 0; attempt < 20 && n < PAGES / 2; attempt++) {
		MUST(madvise(area, PAGES * PAGE, MADV_PAGEOUT));
		n = 0;
		for (int page = 0; page < PAGES; page++)
			n += in_swap(area + page * PAGE);
	}
	return n;
}

int main(void)
{
	make_swap();
	char *own = anonymous(PAGES, PROT_READ | PROT_WRITE), *common = anonymous(PAGES, PROT_READ | PROT_WRITE);
	char *shared = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pattern_fill(own, PAGES * PAGE, 1);
	pattern_fill(common, PAGES * PAGE, 2);
	pattern_fill(shared, PAGES * PAGE, 3);
	if (put_out(own) == 0)
		specimen_skip("the kernel swaps nothing out");
	put_out(common);
	pid_t pid = MUST(fork());
	if (pid == 0) {
		while (specimen_child_round())
			expect_pattern("child: swapped before the fork", common, PAGES * PAGE, 2);
		_exit(specimen_end());
	}
	while (specimen_round()) {
		int n = put_out(own);
		madvise(shared, PAGES * PAGE, MADV_PAGEOUT);
		specimen_ready();
		expect_between("pages that were in swap", PAGES / 4, PAGES, n);
		expect_pattern("swapped", own, PAGES * PAGE, 1);
		expect_pattern("swapped before the fork", common, PAGES * PAGE, 2);
		expect_pattern("shared and swapped", shared, PAGES * PAGE, 3);
		specimen_await(1);
	}
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	swapoff(swap_path);
	return specimen_end();
}
