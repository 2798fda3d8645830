/*
 * guardian.c - the process that watches the pager, and the end of a tree whose memory cannot be brought.
 *
 * While a descriptor of a userfaultfd is open, whoever needs a page that is missing waits. So first everybody is
 * killed, and only when an address space is gone, its descriptor is closed. Who has forked during the
 * restore, and whose parent has ended, is found when it needs such a page: the event names the thread.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "restorer/pager_private.h"
#include "store/scope.h"

#define MANY 65536 /* processes of a tree, at most, that are looked for */
#define LOOK_MS 2

/* --- directories, without an allocator ------------------------------------------------------ */

struct entry { /* as getdents64(2) has it */
	uint64_t ino;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* Calls fn for each name in a directory that is a number. */
static void each_number(const char *directory, void (*fn)(void *arg, int number), void *arg)
{
	_Alignas(8) char buffer[4096];
	cleanup_fd int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (long n; fd >= 0 && (n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0;)
		for (long at = 0; at < n;) {
			const struct entry *entry = (const struct entry *)(buffer + at);
			at += entry->length;
			if (entry->name[0] >= '0' && entry->name[0] <= '9')
				fn(arg, atoi(entry->name));
		}
}

/* --- who is in the tree ------------------------------------------------------------------------ */

struct family_member {
	pid_t pid, parent;
	bool ours;
};

struct members {
	struct family_member *list;
	size_t n;
};

static void note_process(void *arg, int pid)
{
	struct members *members = arg;
	char path[32], text[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n < 0 || members->n == MANY)
		return;
	text[n] = '\0';
	const char *behind = strrchr(text, ')'); /* a name may contain anything */
	int parent;
	if (behind && sscanf(behind + 1, " %*c %d", &parent) == 1)
		members->list[members->n++] = (struct family_member){ pid, parent, false };
}

static bool is_ours(const struct pager *pager, const struct members *members, const struct family_member *member)
{
	for (size_t i = 0; i < pager->order->n; i++)
		if (member->pid == pager->order->spaces[i].pid)
			return true;
	for (size_t i = 0; i < members->n; i++)
		if (members->list[i].ours && members->list[i].pid == member->parent)
			return true;
	return false;
}

/* Descendants of the processes that were restored, as long as their parents can still tell. */
static void kill_descendants(const struct pager *pager, struct members *members)
{
	members->n = 0;
	each_number("/proc", note_process, members);
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < members->n; i++) {
			struct family_member *member = &members->list[i];
			if (!member->ours && is_ours(pager, members, member))
				member->ours = more = true;
		}
	}
	for (size_t i = 0; i < members->n; i++) {
		bool restored = false;
		for (size_t j = 0; j < pager->order->n; j++)
			restored |= members->list[i].pid == pager->order->spaces[j].pid;
		if (members->list[i].ours && !restored)
			kill(members->list[i].pid, SIGKILL);
	}
}

static void kill_tree(const struct pager *pager)
{
	struct members members = { mmap(NULL, MANY * sizeof(struct family_member), PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), 0 };
	/* They first: the dead have no children. (Not stopped before: whoever waits for the root would see that.) */
	if (members.list != MAP_FAILED)
		kill_descendants(pager, &members);
	for (size_t i = 0; i < pager->order->n; i++)
		syscall(SYS_pidfd_send_signal, pager->order->spaces[i].pidfd, SIGKILL, NULL, 0);
	if (members.list != MAP_FAILED)
		munmap(members.list, MANY * sizeof(struct family_member));
}

/* --- until nobody is left -------------------------------------------------------------------------- */

/* Thread numbers are those of the namespace of whoever faults: is it really somebody with such memory? */
static bool is_watched(pid_t tid)
{
	char path[32], text[4096 + 1];
	snprintf(path, sizeof(path), "/proc/%d/smaps", tid);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	for (ssize_t n; fd >= 0 && (n = read(fd, text, sizeof(text) - 1)) > 0;) {
		text[n] = '\0';
		if (strstr(text, " um "))
			return true;
	}
	return false;
}

struct holding {
	size_t left; /* descriptors whose memory is not gone */
};

static void hold(void *arg, int fd)
{
	struct holding *holding = arg;
	char path[32], target[64];
	struct uffd_msg event;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	if (strcmp(target, "anon_inode:[userfaultfd]") != 0)
		return;
	if (guest_is_gone(fd)) {
		close(fd);
		return;
	}
	holding->left++;
	while (read(fd, &event, sizeof(event)) == sizeof(event)) /* a child's descriptor comes into the table by that */
		if (event.event == UFFD_EVENT_PAGEFAULT && is_watched((pid_t)event.arg.pagefault.feat.ptid))
			kill((pid_t)event.arg.pagefault.feat.ptid, SIGKILL);
}

/* --- its message ---------------------------------------------------------------------------------------- */

static void say(const struct pager *pager, const char *why)
{
	char *text = pager->progress->message;
	size_t size = sizeof(pager->progress->message);
	int n = snprintf(text, size, "fsnap: %s was killed: %s, when part of its memory had not come back yet\n"
			 "fsnap: `fsnap verify %s` tells whether the image is whole; if it is, restore it again\n",
			 pager->order->who, why, image_name(pager->order->image));
	pager->progress->failed = 1;
	if (n < 0)
		return;
	cleanup_fd int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (log >= 0) {
		const char *end = strchr(text, '\n');
		(void)!write(log, text, end ? (size_t)(end - text) : strlen(text));
	}
	if (pager->order->tell >= 0)
		(void)!write(pager->order->tell, text, strlen(text));
}

void guardian_end_tree(struct pager *pager, const char *why)
{
	if (!pager->progress->failed)
		say(pager, why);
	kill_tree(pager);
	for (;;) {
		struct holding holding = { 0 };
		each_number("/proc/self/fd", hold, &holding);
		if (!holding.left)
			return;
		poll(NULL, 0, LOOK_MS);
	}
}

/* --- the process ------------------------------------------------------------------------------------------- */

static void be_guardian(struct pager *pager, pid_t watched)
{
	char why[96];
	struct pollfd news = { .fd = pager->self, .events = POLLIN };
	setsid();
	prctl(PR_SET_NAME, "fsnap-guardian");
	while (poll(&news, 1, -1) < 0 && errno == EINTR)
		;
	if (!__atomic_load_n(&pager->progress->safe, __ATOMIC_ACQUIRE)) {
		snprintf(why, sizeof(why), "process %d, which brought its memory from the image, has died", watched);
		guardian_end_tree(pager, why);
		pager_done(pager->progress);
	}
	_exit(0);
}

int guardian_start(struct pager *pager)
{
	pid_t watched = getpid();
	long pid = syscall(SYS_clone, (long)CLONE_FILES, 0, NULL, NULL, 0);
	if (pid == 0)
		be_guardian(pager, watched);
	pager->guardian = pid > 0 ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1;
	if (pager->guardian < 0)
		return fail(&pager->err, FSNAP_E_SYSTEM, errno, "a guardian for the pager");
	pager->guardian_pid = (pid_t)pid;
	return 0;
}

int guardian_watch(struct pager *pager)
{
	close(pager->guardian);
	waitpid(pager->guardian_pid, NULL, __WALL);
	return guardian_start(pager);
}
