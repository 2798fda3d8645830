/*
 * Files of one size that take each other's places in memory without pause, some that have a name and some that have none
 * any more, while each is mapped elsewhere, too, where it stays.  Whoever reads which file is mapped somewhere, and opens
 * what is mapped there a moment later, has opened another one: it must not become the content of the first.
 *
 * harness: restless live
 */
#include "../specimen_memory.h"
#include "../specimen_worker.h"

enum { PAIRS = 8, FILES = 2 * PAIRS, PAGES = 2 };

/* Places that are exchanged lie below those that stay: they are read first. */
static struct file {
	int fd;
	char *stays;
} files[FILES];

static char *exchanged[PAIRS];
static struct worker worker;

static uint64_t seed_of(int i)
{
	return 71 + (uint64_t)i;
}

static void map_there(char *at, int fd)
{
	MUST(mmap(at, PAGES * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0));
}

static void *exchange(void *arg)
{
	for (unsigned n = 0;; n++) {
		unsigned pair = n % PAIRS, other = n / PAIRS % 2;
		map_there(exchanged[pair], files[2 * pair + other].fd);
		worker_changed(&worker);
	}
	return arg;
}

static void make(int i, bool removed)
{
	static char content[PAGES * PAGE];
	char *path = specimen_path("file%d", i);
	pattern_fill(content, sizeof(content), seed_of(i));
	files[i].fd = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(write(files[i].fd, content, sizeof(content)));
	map_there(files[i].stays, files[i].fd);
	if (removed)
		MUST(unlink(path));
}

static void set_up(void)
{
	char *place = empty_place((PAIRS + FILES) * 2 * PAGES * PAGE, PAGE);
	for (int i = 0; i < PAIRS; i++, place += 2 * PAGES * PAGE)
		exchanged[i] = place;
	for (int i = 0; i < FILES; i++, place += 2 * PAGES * PAGE) {
		files[i].stays = place;
		make(i, i % 4 < 2);
	}
	for (int i = 0; i < PAIRS; i++)
		map_there(exchanged[i], files[2 * i].fd);
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	set_up();
	pthread_t thread;
	MUST_ZERO(pthread_create(&thread, NULL, exchange, NULL));
	while (specimen_round()) {
		worker_go_on(&worker, 100);
		specimen_ready();
		worker_halt(&worker);
		for (int i = 0; i < FILES; i++) {
			char what[64];
			snprintf(what, sizeof(what), "%s, what is mapped for good", i % 4 < 2 ? "a removed file" : "a file");
			expect_pattern(what, files[i].stays, PAGES * PAGE, seed_of(i));
		}
		for (int i = 0; i < PAIRS; i++) {
			bool first = memcmp(exchanged[i], files[2 * i].stays, PAGES * PAGE) == 0;
			bool second = memcmp(exchanged[i], files[2 * i + 1].stays, PAGES * PAGE) == 0;
			expect_int("exchanged: one of its two", 1, first + second);
		}
	}
	return specimen_end();
}
