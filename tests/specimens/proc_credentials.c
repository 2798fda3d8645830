/*
 * Credentials that are not simply root's: real, effective, saved and filesystem
 * IDs that differ, supplementary groups, all five capability sets, securebits
 * and no_new_privs; and that they are in force.
 *
 * harness: root
 */
#include "specimen.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static const char *const keys[] = { "Uid",    "Gid",	"Groups", "CapInh",	"CapPrm",
				    "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp" };
enum { KEYS = sizeof(keys) / sizeof(keys[0]), SIZE = 256 };
static char before[KEYS][SIZE];

static void set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32),
		  (uint32_t)(inheritable >> 32) },
	};
	MUST(syscall(SYS_capset, &header, data));
}

static void become(void)
{
	uint64_t bind = 1ul << CAP_NET_BIND_SERVICE, nice = 1ul << CAP_SYS_NICE,
		 raw = 1ul << CAP_NET_RAW;
	gid_t groups[] = { 5, 7, 70000 };
	MUST(setgroups(3, groups));
	MUST(setresgid(10, 11, 12));
	MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
	MUST(prctl(PR_CAPBSET_DROP, CAP_MAC_ADMIN));
	MUST(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT));
	MUST(setresuid(1001, 1002, 1003));
	setfsuid(1001);
	set_capabilities(bind, bind | nice | raw, bind | raw);
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

int main(void)
{
	MUST(chmod(getenv("FSNAP_WORK"), 0777));
	MUST(chmod(specimen_path("output"), 0666));
	int secret = MUST(open(specimen_path("secret"), O_RDWR | O_CREAT, 0600));
	close(secret);
	umask(0);
	become();
	int bits = prctl(PR_GET_SECUREBITS);
	for (int i = 0; i < KEYS; i++)
		proc_field("/proc/self/status", keys[i], before[i], SIZE);

	while (specimen_round()) {
		specimen_ready();
		char now[SIZE];
		for (int i = 0; i < KEYS; i++)
			expect_text(keys[i], before[i],
				    proc_field("/proc/self/status", keys[i], now, SIZE));
		expect_hex("securebits", (unsigned)bits, (unsigned)prctl(PR_GET_SECUREBITS));
		uid_t ids[3];
		MUST(getresuid(&ids[0], &ids[1], &ids[2]));
		expect_int("real user", 1001, ids[0]);
		expect_int("effective user", 1002, ids[1]);
		expect_int("saved user", 1003, ids[2]);
		expect_errno("root's file", EACCES, open(specimen_path("secret"), O_RDONLY));
		struct stat st;
		char *name = specimen_path("made.%d", specimen_number());
		close(MUST(open(name, O_WRONLY | O_CREAT, 0600)));
		MUST(stat(name, &st));
		expect_int("owner of a new file: the filesystem user", 1001, st.st_uid);
		expect_int("group of a new file", 11, st.st_gid);
	}
	return specimen_end();
}
