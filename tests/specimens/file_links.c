/*
 * Files that are no more under the name they were opened by, but still there: with
 * another link in the same directory, in another one, renamed, moved, covered by a
 * mount. It is the file itself that comes back, not a copy: what others write into
 * it is seen.
 *
 * harness: differs=deleted|/near|/far|cover
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { FILES = 5 };

int main(void)
{
	static const char *const opened[FILES] = { "near", "dir/far", "renamed", "moved", "covered" };
	static const char *const now[FILES] = { "near 2", "far 2", "renamed 2", "dir/moved (deleted)", "covered" };
	int fds[FILES];
	struct stat before[FILES], after;
	bool root = geteuid() == 0;
	for (int i = 0; i < FILES; i++) {
		fds[i] = MUST(open(specimen_path("%s", opened[i]), O_RDWR | O_CREAT, 0600));
		MUST(write(fds[i], "0123456789", 10));
		MUST(fstat(fds[i], &before[i]));
	}
	for (int i = 0; i < 2; i++) {
		MUST(link(specimen_path("%s", opened[i]), specimen_path("%s", now[i])));
		MUST(unlink(specimen_path("%s", opened[i])));
	}
	/* The old name is somebody else's now. */
	close(MUST(open(specimen_path("near"), O_RDWR | O_CREAT, 0600)));
	for (int i = 2; i < 4; i++)
		MUST(rename(specimen_path("%s", opened[i]), specimen_path("%s", now[i])));
	char *covered = specimen_path("covered");
	if (root) {
		close(MUST(open(specimen_path("cover"), O_RDWR | O_CREAT, 0600)));
		MUST(mount(specimen_path("cover"), covered, NULL, MS_BIND, NULL));
	}

	while (specimen_round()) {
		specimen_ready();
		if (root)
			MUST(umount2(covered, MNT_DETACH));
		for (int i = 0; i < FILES; i++) {
			char text[8] = "", word[16];
			expect_ok("fstat", fstat(fds[i], &after));
			expect_int(opened[i], (long)before[i].st_ino, (long)after.st_ino);
			expect_int("links", 1, (long)after.st_nlink);
			expect_int("offset", 10, lseek(fds[i], 0, SEEK_CUR));
			int other = open(specimen_path("%s", now[i]), O_RDWR);
			snprintf(word, sizeof(word), "%d", 100 + specimen_number());
			expect_int("bytes written through its name", 3, pwrite(other, word, 3, 5));
			expect_int("bytes read", 3, pread(fds[i], text, 3, 5));
			expect_text("what others wrote", word, text);
			close(other);
		}
		if (root)
			MUST(mount(specimen_path("cover"), covered, NULL, MS_BIND, NULL));
	}
	return specimen_end();
}
