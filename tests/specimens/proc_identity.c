/*
 * Who the process is, as it and ps see it: IDs, name, working directory, umask,
 * arguments, environment, executable, auxiliary vector with its random bytes.
 *
 * harness: musl
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>

struct text {
	char bytes[8192];
	ssize_t length;
};

static struct text slurp(const char *path)
{
	struct text text;
	int fd = MUST(open(path, O_RDONLY));
	text.length = MUST(read(fd, text.bytes, sizeof(text.bytes)));
	close(fd);
	return text;
}

static void expect_same(const char *path, const struct text *before)
{
	struct text now = slurp(path);
	if (expect_int(path, before->length, now.length))
		expect_bytes(path, before->bytes, now.bytes, (size_t)now.length);
}

static struct text exe_link(void)
{
	struct text text = { .length = 0 };
	text.length = MUST(readlink("/proc/self/exe", text.bytes, sizeof(text.bytes) - 1));
	return text;
}

int main(int argc, char **argv)
{
	char *dir = specimen_path("dir");
	MUST(chdir(dir));
	umask(027);
	MUST(prctl(PR_SET_NAME, "a new name"));
	uint8_t random_bytes[16];
	memcpy(random_bytes, (void *)getauxval(AT_RANDOM), 16);
	static struct text cmdline, environ_text, auxv, exe;
	cmdline = slurp("/proc/self/cmdline");
	environ_text = slurp("/proc/self/environ");
	auxv = slurp("/proc/self/auxv");
	exe = exe_link();
	pid_t pid = getpid(), parent = getppid(), session = getsid(0), group = getpgrp();

	while (specimen_round()) {
		specimen_ready();
		char here[4096] = "";
		expect_int("getpid", pid, getpid());
		if (strcmp(specimen_mode(), "three-rounds") != 0)
			expect_int("getppid", parent, getppid());
		expect_int("getsid", session, getsid(0));
		expect_int("getpgrp", group, getpgrp());
		expect_text("working directory", dir, getcwd(here, sizeof(here)));
		mode_t mask = umask(027);
		expect_int("umask", 027, mask);
		MUST(prctl(PR_GET_NAME, here));
		expect_text("name", "a new name", here);
		expect_same("/proc/self/cmdline", &cmdline);
		expect_same("/proc/self/environ", &environ_text);
		expect_same("/proc/self/auxv", &auxv);
		struct text now = exe_link();
		expect_text("/proc/self/exe", exe.bytes, now.bytes);
		expect_bytes("AT_RANDOM", random_bytes, (void *)getauxval(AT_RANDOM), 16);
		expect_int("argc", 4, argc);
		expect_text("argv[1]", "first argument", argv[1]);
		expect_text("argv[2]", "", argv[2]);
		expect_text("the environment's HOME", getenv("FSNAP_WORK"), getenv("HOME"));
	}
	return specimen_end();
}
