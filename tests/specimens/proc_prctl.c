/*
 * Settings made by prctl and through /proc: parent-death signal, subreaper,
 * transparent huge pages off, personality, core filter and OOM score.
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void put(const char *path, const char *text)
{
	int fd = MUST(open(path, O_WRONLY));
	MUST(write(fd, text, strlen(text)));
	close(fd);
}

static const char *get(const char *path, char *buf, size_t size)
{
	int fd = MUST(open(path, O_RDONLY));
	ssize_t n = MUST(read(fd, buf, size - 1));
	close(fd);
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return buf;
}

int main(void)
{
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	MUST(personality(ADDR_NO_RANDOMIZE));
	put("/proc/self/coredump_filter", "0x12");
	put("/proc/self/oom_score_adj", "250");

	pid_t child = MUST(fork());
	if (child == 0) {
		MUST(prctl(PR_SET_PDEATHSIG, SIGTERM));
		while (specimen_child_round()) {
			int number = 0;
			MUST(prctl(PR_GET_PDEATHSIG, &number));
			expect_int("parent-death signal", SIGTERM, number);
		}
		_exit(specimen_end());
	}
	while (specimen_round()) {
		specimen_ready();
		char text[64];
		int value = 0;
		MUST(prctl(PR_GET_CHILD_SUBREAPER, &value));
		expect_int("subreaper", 1, value);
		expect_int("huge pages disabled", 1, prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
		expect_hex("personality", ADDR_NO_RANDOMIZE, (unsigned)personality(0xffffffff));
		expect_text("coredump_filter", "00000012",
			    get("/proc/self/coredump_filter", text, 64));
		expect_text("oom_score_adj", "250", get("/proc/self/oom_score_adj", text, 64));
		specimen_await(1);

		pid_t middle = MUST(fork());
		if (middle == 0) {
			if (MUST(fork()) == 0) {
				sleep_ms(30);
				_exit(33);
			}
			_exit(0);
		}
		int status = -1;
		MUST(waitpid(middle, &status, 0));
		/* Not blocking: where the orphan went elsewhere, that would wait for the child. */
		pid_t orphan = 0;
		for (int i = 0; i < 200 && (orphan <= 0 || orphan == child); i++, sleep_ms(5))
			orphan = waitpid(-1, &status, WNOHANG);
		expect_int("an orphan's status comes to the subreaper", 33,
			   orphan > 0 && orphan != child ? WEXITSTATUS(status) : -1);
	}
	return specimen_end();
}
