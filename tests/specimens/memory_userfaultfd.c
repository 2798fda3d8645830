/*
 * A program that handles page faults of its own memory (userfaultfd): after a restore
 * missing pages are missing, and the handler is told of them; pages that were filled or
 * were zeroes are there and nobody is told; write-protected pages are so still; a thread
 * that waited in a fault waits, and goes on when its page is filled.
 */
#include "specimen_memory.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

enum { PAGES = 64, FILLED = 8, ZEROED = 4, GUARDED = 6 };

static int uffd;
static char *area, *guarded;
static volatile int missing_events, protect_events, hold;
static char *volatile last_event;

static void fill(char *page)
{
	static _Thread_local char content[PAGE];
	pattern_fill(content, PAGE, (uint64_t)(page - area));
	struct uffdio_copy copy = { .dst = (uintptr_t)page, .src = (uintptr_t)content, .len = PAGE };
	ioctl(uffd, UFFDIO_COPY, &copy);
}

/* Pages are filled when `hold` does not name them. */
static void *handle(void *arg)
{
	for (;;) {
		struct pollfd wait = { uffd, POLLIN, 0 };
		struct uffd_msg msg;
		if (poll(&wait, 1, -1) < 0 || read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		char *page = (char *)(uintptr_t)(msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1));
		last_event = page;
		if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
			struct uffdio_writeprotect allow = { .range = { (uintptr_t)page, PAGE } };
			__atomic_add_fetch(&protect_events, 1, __ATOMIC_SEQ_CST);
			ioctl(uffd, UFFDIO_WRITEPROTECT, &allow);
			continue;
		}
		__atomic_add_fetch(&missing_events, 1, __ATOMIC_SEQ_CST);
		while (hold && page == area + hold * PAGE)
			sleep_ms(1);
		fill(page);
	}
	return arg;
}

static volatile long long waited;

static void *wait_for_page(void *arg)
{
	waited = *(volatile char *)arg + 1000;
	return NULL;
}

static void watch(char *at, size_t pages, uint64_t mode)
{
	struct uffdio_register range = { .range = { (uintptr_t)at, pages * PAGE }, .mode = mode };
	MUST(ioctl(uffd, UFFDIO_REGISTER, &range));
}

static void protect(char *at, size_t pages)
{
	struct uffdio_writeprotect range = { .range = { (uintptr_t)at, pages * PAGE },
					     .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	MUST(ioctl(uffd, UFFDIO_WRITEPROTECT, &range));
}

static void expect_page(int page, int events)
{
	char expected[PAGE];
	int before = missing_events;
	pattern_fill(expected, PAGE, (uint64_t)page * PAGE);
	expect_bytes("page", expected, area + page * PAGE, PAGE);
	expect_int("faults that the handler was told of", events, missing_events - before);
}

int main(void)
{
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
		specimen_skip("userfaultfd: %s", strerror(errno));
	area = anonymous(PAGES, PROT_READ | PROT_WRITE);
	guarded = anonymous(GUARDED, PROT_READ | PROT_WRITE);
	pattern_fill(guarded, GUARDED * PAGE, 9);
	watch(area, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	watch(guarded, GUARDED, UFFDIO_REGISTER_MODE_WP);
	protect(guarded, GUARDED / 2);
	for (int page = 0; page < FILLED; page++)
		fill(area + page * PAGE);
	struct uffdio_zeropage zero = { .range = { (uintptr_t)area + FILLED * PAGE, ZEROED * PAGE } };
	MUST(ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
	pthread_t handler;
	MUST_ZERO(pthread_create(&handler, NULL, handle, NULL));
	int next = FILLED + ZEROED;

	while (specimen_round()) {
		/* One fault is under way. */
		hold = next++;
		waited = 0;
		pthread_t waiter;
		int before = missing_events;
		MUST_ZERO(pthread_create(&waiter, NULL, wait_for_page, area + hold * PAGE));
		while (missing_events == before)
			sleep_ms(1);
		specimen_ready();
		expect_int("the thread still waits for its page", 0, waited);
		char first;
		pattern_fill(&first, 1, (uint64_t)hold * PAGE);
		hold = 0;
		MUST_ZERO(pthread_join(waiter, NULL));
		expect_int("and has it now", first + 1000, waited);
		sleep_ms(5);

		for (int page = 0; page < FILLED; page++)
			expect_page(page, 0);
		before = missing_events;
		expect_zero("a page that was zeroes", area + FILLED * PAGE, ZEROED * PAGE);
		expect_int("which nobody was told of", before, missing_events);
		expect_page(next++, 1);
		expect_int("and which page it was", 1, last_event == area + (next - 1) * PAGE);
		expect_int("watched for missing pages", 1, has_flag(area, "um"));
		expect_int("watched for writes", 1, has_flag(guarded, "uw"));

		expect_pattern("protected memory", guarded, GUARDED * PAGE, 9);
		volatile char *written = guarded;
		before = protect_events;
		written[(GUARDED - 1) * PAGE] ^= 1;
		expect_int("writing to what is not protected", before, protect_events);
		written[PAGE] ^= 1;
		expect_int("writing to what is", before + 1, protect_events);
		written[PAGE] ^= 1;
		written[(GUARDED - 1) * PAGE] ^= 1;
		protect(guarded, GUARDED / 2);
	}
	return specimen_end();
}
