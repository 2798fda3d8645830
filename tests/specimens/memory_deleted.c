/*
 * Files that are mapped and have no name any more, no descriptor either: deleted ones,
 * mapped shared (still one file for two processes) and privately (written pages and
 * others), one that was replaced by another of the same name, one whose directory is
 * gone. Their size can be told by where the bus errors begin. (Where another has the
 * name now, or the directory is gone, the file cannot be called the same again.)
 *
 * harness: differs=/(b(\.\w+)?|gone/c|#\d+).\(deleted
 */
#include "specimen_memory.h"

#include <sys/stat.h>
#include <sys/wait.h>

enum { PAGES = 5 };

static char *mapped(const char *path, int flags, uint64_t seed)
{
	static char content[PAGES * PAGE];
	pattern_fill(content, sizeof(content), seed);
	int fd = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(write(fd, content, sizeof(content)));
	char *at = MUST(mmap(NULL, (PAGES + 2) * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0));
	MUST(close(fd));
	return at;
}

static void check(const char *what, char *at, uint64_t seed)
{
	expect_pattern(what, at, PAGES * PAGE, seed);
	expect_int("behind its end", SIGBUS, access_signal(at + PAGES * PAGE, false));
}

int main(void)
{
	char *name = specimen_path("a"), *replaced_name = specimen_path("b"), *dir = specimen_path("gone");
	char *inner = specimen_path("gone/c"), *other = specimen_path("b.new");
	char *shared = mapped(name, MAP_SHARED, 1);
	char *private = MUST(mmap(NULL, (PAGES + 2) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
				  MUST(open(name, O_RDONLY | O_CLOEXEC)), 0));
	close(3);
	private[PAGE] ^= 1;
	MUST(unlink(name));
	char *replaced = mapped(replaced_name, MAP_SHARED, 2), *replacing = mapped(other, MAP_SHARED, 3);
	MUST(rename(other, replaced_name));
	MUST(mkdir(dir, 0700));
	char *lost = mapped(inner, MAP_PRIVATE, 4);
	MUST(unlink(inner));
	MUST(rmdir(dir));
	catch_faults();
	pid_t pid = MUST(fork());
	if (pid == 0) {
		while (specimen_child_round())
			for (long long end = now_ms() + 5000; shared[9] != 'p' && now_ms() < end;)
				sleep_ms(1);
		expect_int("child: what the parent wrote last", 'p', shared[9]);
		_exit(specimen_end());
	}

	char was = shared[9];
	while (specimen_round()) {
		shared[9] = was;
		specimen_ready();
		check("deleted, shared", shared, 1);
		private[PAGE] ^= 1;
		check("deleted, private", private, 1);
		private[PAGE] ^= 1;
		check("replaced", replaced, 2);
		check("what replaced it", replacing, 3);
		check("in a directory that is gone", lost, 4);
		shared[9] = 'p';
		specimen_await(1);
	}
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	return specimen_end();
}
