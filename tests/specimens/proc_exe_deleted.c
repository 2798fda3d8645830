/*
 * A program whose file was deleted while it runs, as an upgrade does: it can be
 * saved and runs on without its file, or is refused.
 *
 * harness: differs=deleted|exe may-refuse
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

static int data_segment[3000] = { 1, 2, 3 };

static __attribute__((noinline)) int text_of_my_own(int x)
{
	return x * 3 + data_segment[1];
}

static void run_a_copy(char **argv)
{
	char *copy = specimen_path("copy");
	int from = MUST(open("/proc/self/exe", O_RDONLY)),
	    to = MUST(open(copy, O_WRONLY | O_CREAT, 0700));
	struct stat st;
	MUST(fstat(from, &st));
	MUST(sendfile(to, from, NULL, (size_t)st.st_size));
	close(to);
	close(from);
	MUST(setenv("COPIED", "1", 1));
	MUST(execv(copy, argv));
}

int main(int argc, char **argv)
{
	(void)argc;
	if (!getenv("COPIED"))
		run_a_copy(argv);
	MUST(unlink(specimen_path("copy")));
	data_segment[2000] = 77;
	while (specimen_round()) {
		specimen_ready();
		expect_int("a function of the deleted file", 23, text_of_my_own(7));
		expect_int("its data", 77, data_segment[2000]);
		expect_int("its data", 3, data_segment[2]);
	}
	return specimen_end();
}
