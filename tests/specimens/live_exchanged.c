/*
 * Files of one size that take each other's places in memory without pause, some that have a name and some that have none
 * any more, while each is mapped elsewhere, too, where it stays.  Whoever reads which file is mapped somewhere, and opens
 * what is mapped there a moment later, has opened another one: it must not become the content of the first. Before a place
 * is taken the thread looks whether what it mapped there is there still: nobody else has seen it since a restore.
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
	char content[PAGES * PAGE];
} files[FILES];

static struct {
	char *at;
	const struct file *file;
} exchanged[PAIRS];

static struct worker worker;
static unsigned wrong;

static uint64_t seed_of(int i)
{
	return 71 + (uint64_t)i;
}

static void map_there(char *at, int fd)
{
	MUST(mmap(at, PAGES * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0));
}

static bool is_there(unsigned pair)
{
	return memcmp(exchanged[pair].at, exchanged[pair].file->content, PAGES * PAGE) == 0;
}

static void *exchange(void *arg)
{
	for (unsigned n = 0;; n++) {
		unsigned pair = n % PAIRS;
		const struct file *file = &files[2 * pair + n / PAIRS % 2];
		wrong += !is_there(pair);
		map_there(exchanged[pair].at, file->fd);
		exchanged[pair].file = file;
		worker_changed(&worker);
	}
	return arg;
}

static void make(int i, bool removed)
{
	char *path = specimen_path("file%d", i);
	pattern_fill(files[i].content, PAGES * PAGE, seed_of(i));
	files[i].fd = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(write(files[i].fd, files[i].content, PAGES * PAGE));
	map_there(files[i].stays, files[i].fd);
	if (removed)
		MUST(unlink(path));
}

static void set_up(void)
{
	char *place = empty_place((PAIRS + FILES) * 2 * PAGES * PAGE, PAGE);
	for (int i = 0; i < PAIRS; i++, place += 2 * PAGES * PAGE)
		exchanged[i].at = place;
	for (int i = 0; i < FILES; i++, place += 2 * PAGES * PAGE) {
		files[i].stays = place;
		make(i, i % 4 < 2);
	}
	for (int i = 0; i < PAIRS; i++) {
		exchanged[i].file = &files[2 * i];
		map_there(exchanged[i].at, files[2 * i].fd);
	}
}

int main(void)
{
	set_up();
	worker_start(exchange);
	while (worker_round(&worker, 100)) {
		for (int i = 0; i < FILES; i++) {
			char what[64];
			snprintf(what, sizeof(what), "%s, what is mapped for good", i % 4 < 2 ? "a removed file" : "a file");
			expect_pattern(what, files[i].stays, PAGES * PAGE, seed_of(i));
		}
		expect_int("places found wrong on the way", 0, wrong);
		for (unsigned i = 0; i < PAIRS; i++)
			expect_int("exchanged: what was mapped there last", true, is_there(i));
	}
	return specimen_end();
}
