/*
 * uring_late FILE - numbers its pages, and on SIGUSR1 makes a ring of io_uring with these as registered buffers, or, if it has
 * one, reads numbers into some of them, past the page tables. On SIGUSR2 it says whether all pages are what they should be.
 */
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 64
#define AT_ONCE 16

static struct io_uring ring;
static char *pages;
static unsigned numbers[PAGES];
static unsigned last;

static void must(int result)
{
	if (result >= 0)
		return;
	perror("uring_late");
	exit(2);
}

static void make_ring(void)
{
	struct iovec all = { pages, PAGES * PAGE };
	must(io_uring_queue_init(8, &ring, 0));
	must(io_uring_register_buffers(&ring, &all, 1));
}

static void read_some(int fd)
{
	for (int i = 0; i < AT_ONCE; i++) {
		unsigned page = ++last % PAGES;
		unsigned number[PAGE / sizeof(unsigned)] = { last };
		struct io_uring_cqe *done;
		must((int)pwrite(fd, number, PAGE, 0));
		io_uring_prep_read_fixed(io_uring_get_sqe(&ring), fd, pages + page * PAGE, PAGE, 0, 0);
		must(io_uring_submit(&ring));
		must(io_uring_wait_cqe(&ring, &done));
		must(done->res == PAGE ? 0 : -1);
		io_uring_cqe_seen(&ring, done);
		numbers[page] = last;
	}
}

static void tell(void)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < PAGES; i++)
		wrong += memcmp(pages + i * PAGE, &numbers[i], sizeof(numbers[i])) != 0;
	printf("%u of %u pages are wrong\n", wrong, PAGES);
}

int main(int argc, char **argv)
{
	sigset_t asked;
	int fd = open(argv[argc - 1], O_RDWR | O_CREAT | O_TRUNC, 0600), signo = 0;
	bool has_ring = false;
	must(fd);
	sigemptyset(&asked);
	sigaddset(&asked, SIGUSR1);
	sigaddset(&asked, SIGUSR2);
	sigprocmask(SIG_BLOCK, &asked, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(pages == MAP_FAILED ? -1 : 0);
	for (; last < PAGES; last++)
		memcpy(pages + last * PAGE, &last, sizeof(last)), numbers[last] = last;
	for (printf("ready\n"); sigwait(&asked, &signo) == 0;) {
		if (signo == SIGUSR2)
			tell();
		else if (has_ring)
			read_some(fd), printf("read\n");
		else
			make_ring(), has_ring = true, printf("ring\n");
	}
	return 0;
}
