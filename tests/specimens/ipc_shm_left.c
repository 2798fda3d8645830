/*
 * A System V segment outlives its processes: the one that a killed tree has left behind is its
 * own again after the restore, with the content of the dump and not what somebody wrote there
 * in between; holes are holes again.
 *
 * harness: ipc=touched
 */
#include "specimen.h"

#include <sys/ipc.h>
#include <sys/shm.h>

enum { PAGE = 4096, PAGES = 8 };

int main(void)
{
	int id = MUST(shmget(0x5eed0003, PAGES * PAGE, IPC_CREAT | IPC_EXCL | 0600));
	char *at = MUST(shmat(id, NULL, 0));
	pattern_fill(at, 2 * PAGE, 90);
	pattern_fill(at + 6 * PAGE, PAGE, 91);
	while (specimen_round()) {
		specimen_ready();
		struct shmid_ds now;
		expect_ok("IPC_STAT", shmctl(id, IPC_STAT, &now));
		expect_int("attachments", 1, (long long)now.shm_nattch);
		expect_pattern("beginning", at, 2 * PAGE, 90);
		expect_zero("hole", at + 2 * PAGE, 4 * PAGE);
		expect_pattern("behind the hole", at + 6 * PAGE, PAGE, 91);
		expect_zero("end", at + 7 * PAGE, PAGE);
	}
	return specimen_end();
}
