/*
 * What may become of a shared mapping is what it was: one made through a descriptor that
 * could write can be made writable, one made through a descriptor that could only read
 * cannot, though both show the same file and are read-only now.
 */
#include "specimen_memory.h"

int main(void)
{
	char *path = specimen_path("shared");
	int fd = MUST(open(path, O_RDWR | O_CREAT, 0600)), readonly = MUST(open(path, O_RDONLY));
	MUST(ftruncate(fd, 4 * PAGE));
	char *may = MUST(mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0));
	char *must_not = MUST(mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, readonly, 0));
	char *validated = MUST(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE, fd, 0));
	MUST(close(fd));
	MUST(close(readonly));

	while (specimen_round()) {
		specimen_ready();
		expect_errno("opened for reading", EACCES, mprotect(must_not, PAGE, PROT_READ | PROT_WRITE));
		expect_ok("opened for writing", mprotect(may, PAGE, PROT_READ | PROT_WRITE));
		*may = (char)specimen_number();
		expect_int("all show the same", specimen_number(), *must_not);
		expect_int("MAP_SHARED_VALIDATE, too", specimen_number(), *validated);
		MUST(mprotect(may, PAGE, PROT_READ));
		expect_int("may write", 1, has_flag(may, "mw"));
		expect_int("may not write", 0, has_flag(must_not, "mw"));
	}
	return specimen_end();
}
