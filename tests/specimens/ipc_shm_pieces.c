/*
 * A System V segment of which only pieces are attached still: cut by munmap, protected in
 * part, moved elsewhere by mremap. Each attachment is still one: shmdt() of the address where
 * its first byte was takes all of it away. And segments marked for removal, two of them made with the
 * same key: they live as long as they are attached, and a third has the key now.
 *
 * harness: ipc=gone
 */
#include "specimen.h"

#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

enum { PAGE = 4096, PAGES = 9, KEY = 0x5eed0004 };

static long long attachments(int id)
{
	struct shmid_ds now;
	return shmctl(id, IPC_STAT, &now) < 0 ? -1 : (long long)now.shm_nattch;
}

static int removed(char **at, uint64_t seed)
{
	int id = MUST(shmget(KEY, PAGE, IPC_CREAT | IPC_EXCL | 0600));
	*at = MUST(shmat(id, NULL, 0));
	pattern_fill(*at, PAGE, seed);
	MUST(shmctl(id, IPC_RMID, NULL));
	return id;
}

static void expect_removed(int id, const char *at, uint64_t seed)
{
	struct shmid_ds now;
	expect_pattern("content of a removed segment", at, PAGE, seed);
	if (!expect_ok("IPC_STAT of a removed segment", shmctl(id, IPC_STAT, &now)))
		return;
	expect_hex("key of a removed segment", IPC_PRIVATE, (unsigned)now.shm_perm.__key);
	expect_hex("mark of a removed segment", SHM_DEST, now.shm_perm.mode & SHM_DEST);
	expect_int("attachments of a removed segment", 1, (long long)now.shm_nattch);
}

int main(void)
{
	char *first, *second;
	int first_id = removed(&first, 101), second_id = removed(&second, 102);
	int id = MUST(shmget(KEY, PAGES * PAGE, IPC_CREAT | IPC_EXCL | 0600));
	char *at = MUST(shmat(id, NULL, 0));
	pattern_fill(at, PAGES * PAGE, 100);
	MUST(munmap(at + PAGE, PAGE));
	MUST(mprotect(at + 3 * PAGE, PAGE, PROT_READ));
	/* The last pages go where nothing follows from the place they had. */
	char *moved = MUST(mmap(NULL, 16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	MUST(munmap(moved, 16 * PAGE));
	MUST(mremap(at + 7 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		    moved + PAGE));
	/* Something else lies in the gap. */
	char *inside = MUST(mmap(at + PAGE, PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	pattern_fill(inside, PAGE, 103);
	char *whole = MUST(shmat(id, NULL, SHM_RDONLY));
	MUST(mprotect(whole + 2 * PAGE, PAGE, PROT_NONE));
	long long counted = attachments(id);

	while (specimen_round()) {
		specimen_ready();
		expect_int("attachments", counted, attachments(id));
		expect_int("id behind the key", id, shmget(KEY, 0, 0));
		expect_pattern("first piece", at, PAGE, 100);
		expect_pattern("the gap", inside, PAGE, 103);
		expect_bytes("second piece", whole + 3 * PAGE, at + 3 * PAGE, 4 * PAGE);
		expect_bytes("moved piece", whole + 7 * PAGE, moved + PAGE, 2 * PAGE);
		moved[PAGE] ^= 1;
		expect_int("it is the same memory", (unsigned char)moved[PAGE],
			   (unsigned char)whole[7 * PAGE]);
		moved[PAGE] ^= 1;
		expect_removed(first_id, first, 101);
		expect_removed(second_id, second, 102);
	}
	expect_ok("shmdt of what is in pieces", shmdt(at));
	expect_ok("shmdt of the whole one", shmdt(whole));
	struct shmid_ds now;
	expect_ok("IPC_STAT at the end", shmctl(id, IPC_STAT, &now));
	expect_ok("shmdt of a removed one", shmdt(first));
	expect_errno("it is gone", EINVAL, shmctl(first_id, IPC_STAT, &now));
	return specimen_end();
}
