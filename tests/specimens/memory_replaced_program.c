/*
 * A program goes on when its own file and a library it uses have been replaced under it,
 * as an upgrade does: the code that runs is the old one, before and after a restore, and
 * what is at the names is the new one. Then the names go altogether.
 *
 * harness: differs=^(mapping|exe)
 */
#include "specimen_memory.h"

#include <sys/sendfile.h>
#include <sys/stat.h>

static void copy_file(const char *from, const char *to)
{
	int in = MUST(open(from, O_RDONLY | O_CLOEXEC));
	int out = MUST(open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755));
	struct stat stat;
	MUST(fstat(in, &stat));
	for (off_t at = 0; at < stat.st_size;)
		MUST(sendfile(out, in, &at, (size_t)stat.st_size));
	close(in);
	close(out);
}

/* Another file takes the name. */
static void replace(const char *path, const char *with)
{
	char *beside = specimen_path("replacement");
	int fd = MUST(open(beside, O_WRONLY | O_CREAT | O_CLOEXEC, 0755));
	MUST(write(fd, with, strlen(with)));
	MUST(close(fd));
	MUST(rename(beside, path));
}

static bool name_holds(const char *path, const char *text)
{
	char seen[64] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, seen, sizeof(seen) - 1);
	close(fd);
	return n == (ssize_t)strlen(text) && strcmp(seen, text) == 0;
}

__attribute__((noinline)) static int answer(int n)
{
	return n * 7 + 1;
}

int main(int argc, char **argv)
{
	char *program = specimen_path("program"), *library = specimen_path("library");
	if (argc < 2 || strcmp(argv[1], "again") != 0) {
		copy_file("/proc/self/exe", program);
		execl(program, program, "again", NULL);
		specimen_broken(__FILE__, __LINE__, "execl", errno);
	}
	/* A library as the dynamic linker maps it: text that runs, and private data. */
	copy_file("/proc/self/exe", library);
	int fd = MUST(open(library, O_RDONLY | O_CLOEXEC));
	struct stat stat;
	MUST(fstat(fd, &stat));
	size_t size = (size_t)stat.st_size;
	char *text = MUST(mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
	char *data = MUST(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	close(fd);
	char *expected = malloc(size);
	memcpy(expected, text, size);
	data[100] ^= 1;
	replace(program, "new program");
	replace(library, "new library");

	while (specimen_round()) {
		specimen_ready();
		expect_int("the old code", 43, answer(6));
		expect_bytes("the old library", expected, text, size);
		data[100] ^= 1;
		expect_bytes("its data", expected, data, size);
		data[100] ^= 1;
		bool there = specimen_number() == 1;
		expect_int("the new program is at its name", there, name_holds(program, "new program"));
		expect_int("the new library is at its name", there, name_holds(library, "new library"));
		char link[4096] = "";
		expect_ok("its executable has a name", readlink("/proc/self/exe", link, sizeof(link) - 1));
		expect_int("which is not the new one's", 1, strcmp(link, program) != 0);
		if (there) {
			MUST(unlink(program));
			MUST(unlink(library));
		}
	}
	return specimen_end();
}
