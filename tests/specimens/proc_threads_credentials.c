/*
 * In Linux credentials belong to the thread: one thread that changed its
 * filesystem user and its capabilities keeps them, and its siblings theirs.
 *
 * harness: root
 */
#include "specimen.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static char before[2][256], effective[2][256];
static volatile int number, through;

static const char *status_path(void)
{
	return "/proc/thread-self/status";
}

static void look(int who)
{
	proc_field(status_path(), "Uid", before[who], 256);
	proc_field(status_path(), "CapEff", effective[who], 256);
}

static void check(int who)
{
	char now[256];
	expect_text(who ? "the thread's Uid" : "the process's Uid", before[who],
		    proc_field(status_path(), "Uid", now, 256));
	expect_text(who ? "the thread's CapEff" : "the process's CapEff", effective[who],
		    proc_field(status_path(), "CapEff", now, 256));
}

static void *other(void *arg)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	MUST(syscall(SYS_capget, &header, data));
	data[0].effective &= ~(1u << CAP_CHOWN);
	data[0].permitted &= ~(1u << CAP_FOWNER);
	data[0].effective &= data[0].permitted;
	MUST(syscall(SYS_capset, &header, data));
	MUST(chmod(getenv("FSNAP_WORK"), 0777));
	syscall(SYS_setfsuid, 1234);
	look(1);
	for (int mine = 1;; mine++) {
		while (number < mine)
			sleep_ms(1);
		check(1);
		through = mine;
	}
	return arg;
}

int main(void)
{
	look(0);
	close(MUST(creat(specimen_path("result"), 0666)));
	MUST(chmod(specimen_path("result"), 0666));
	MUST(chmod(getenv("FSNAP_WORK"), 0777));
	start_blocked(other, NULL);
	while (specimen_round()) {
		specimen_ready();
		check(0);
		number = specimen_number();
		while (through < number)
			sleep_ms(1);
	}
	return specimen_end();
}
