/*
 * What may be done with memory is what might be done: pages that can only be written,
 * only be executed, or not be touched at all, with their content; a hole of a file that
 * is behind its end is a bus error and not a page of zeroes, and becomes memory when the
 * file grows; a large range whose protection was changed in a thousand places.
 */
#include "specimen_memory.h"

enum { PIECES = 1000 };

int main(void)
{
	char *code = anonymous(1, PROT_READ | PROT_WRITE), *writable = anonymous(2, PROT_READ | PROT_WRITE);
	memcpy(code, "\xb8\x2b\x00\x00\x00\xc3", 6); /* mov eax, 43; ret */
	MUST(mprotect(code, PAGE, PROT_EXEC));
	pattern_fill(writable, 2 * PAGE, 1);
	MUST(mprotect(writable, 2 * PAGE, PROT_WRITE));
	char *none = anonymous(2, PROT_READ | PROT_WRITE);
	pattern_fill(none, 2 * PAGE, 2);
	MUST(mprotect(none, 2 * PAGE, PROT_NONE));

	char *path = specimen_path("short");
	int fd = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(ftruncate(fd, PAGE + 100));
	char *shared = MUST(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	char *private = MUST(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	private[PAGE + 50] = 9;

	char *striped = anonymous(2 * PIECES, PROT_READ | PROT_WRITE);
	for (int i = 0; i < 2 * PIECES; i++)
		striped[i * PAGE] = (char)i;
	for (int i = 0; i < PIECES; i++)
		MUST(mprotect(striped + 2 * i * PAGE, PAGE, i % 3 ? PROT_READ : PROT_NONE));
	catch_faults();

	while (specimen_round()) {
		specimen_ready();
		expect_int("code that can only be executed", 43, ((int (*)(void))code)());
		expect_int("writing it", SIGSEGV, access_signal(code, true));
		MUST(mprotect(writable, 2 * PAGE, PROT_READ | PROT_WRITE));
		expect_pattern("what could only be written", writable, 2 * PAGE, 1);
		MUST(mprotect(writable, 2 * PAGE, PROT_WRITE));
		expect_int("touching what may not be", SIGSEGV, access_signal(none, false));
		MUST(mprotect(none, 2 * PAGE, PROT_READ));
		expect_pattern("its content", none, 2 * PAGE, 2);
		MUST(mprotect(none, 2 * PAGE, PROT_NONE));

		expect_int("on the file's last page", 0, access_signal(shared + PAGE + 500, false));
		expect_int("behind the file's end", SIGBUS, access_signal(shared + 3 * PAGE, false));
		expect_int("there, in a private mapping", SIGBUS, access_signal(private + 2 * PAGE, true));
		expect_int("a written page of it", 9, private[PAGE + 50]);
		MUST(ftruncate(fd, 4 * PAGE));
		MUST(pwrite(fd, "grown", 5, 3 * PAGE));
		expect_bytes("when the file has grown", "grown", shared + 3 * PAGE, 5);
		MUST(ftruncate(fd, PAGE + 100));
		expect_int("and when it has shrunk again", SIGBUS, access_signal(shared + 3 * PAGE, false));

		for (int i = 0; i < 2 * PIECES; i += 97) {
			int expected = i % 2 ? 0 : (i / 2) % 3 ? 0 : SIGSEGV;
			expect_int("a stripe", expected, access_signal(striped + i * PAGE, false));
			if (!expected)
				expect_int("its content", (char)i, striped[i * PAGE]);
			expect_int("writing it", i % 2 ? 0 : SIGSEGV, access_signal(striped + i * PAGE, true));
		}
	}
	return specimen_end();
}
