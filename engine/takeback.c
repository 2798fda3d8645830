#include "engine/takeback.h"

#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/helper.h"
#include "engine/kinds/kinds.h"
#include "engine/restore.h"

#define ROOM (4u << 20)	 /* of names; what is not used is never touched */
#define ROUND_US 20000	 /* who was killed with us may be at the end of a system call */
#define ROUNDS 2

struct note {
	uint32_t earlier; /* where that begins, from the first; of the first: itself */
	bool made;
	void (*remove)(const char *name);
	char name[];
};

struct takeback { /* in memory shared with the guard */
	_Atomic uint32_t ready;	  /* futex: the guard holds nothing of ours */
	_Atomic bool kept;
	_Atomic uint32_t used, last; /* bytes; where the last begins */
	pid_t guard;		  /* 0: there is none */
	char notes[] __attribute__((aligned(8)));
};

static void remove_all(struct takeback *list)
{
	for (uint32_t at = list->last, n = list->used; n > 0;) {
		struct note *note = (struct note *)(list->notes + at);
		if (note->made)
			note->remove(note->name);
		n = at;
		at = note->earlier;
	}
}

/* --- the guard ------------------------------------------------------------------------ */

struct post {
	struct takeback *list;
	int restore; /* pidfd */
};

/* It must not keep open what the restore has: peers would wait for ever. */
static void hold_only(int fd)
{
	if (fd > 0)
		syscall(SYS_close_range, 0, fd - 1, 0);
	syscall(SYS_close_range, fd + 1, ~0u, 0);
}

_Noreturn static void guard(void *arg, pid_t parent)
{
	struct post *post = arg;
	struct pollfd end = { .fd = post->restore, .events = POLLIN };
	(void)parent;
	hold_only(post->restore);
	post->list->ready = 1;
	syscall(SYS_futex, &post->list->ready, FUTEX_WAKE, 1, NULL, NULL, 0);
	while (poll(&end, 1, -1) != 1)
		;
	for (int i = 0; i < ROUNDS && !post->list->kept; i++) {
		usleep(i * ROUND_US);
		remove_all(post->list);
	}
	_exit(0);
}

static void post_guard(struct restore *restore, struct takeback *list)
{
	const struct timespec patience = { .tv_sec = 1 };
	struct post post = { list, (int)syscall(SYS_pidfd_open, getpid(), 0) };
	pid_t pid = post.restore < 0 ? -1 : helper_spawn(restore, guard, &post);
	list->guard = pid > 0 ? pid : 0;
	while (pid > 0 && !list->ready &&
	       (syscall(SYS_futex, &list->ready, FUTEX_WAIT, 0, &patience, NULL, 0) == 0 || errno == EINTR))
		;
	if (post.restore >= 0)
		close(post.restore);
}

/* --- the list -------------------------------------------------------------------------- */

static struct takeback *list_of(struct restore *restore)
{
	if (restore->takebacks)
		return restore->takebacks;
	struct takeback *list = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
				     -1, 0);
	if (list == MAP_FAILED)
		return NULL;
	restore->takebacks = list;
	post_guard(restore, list);
	return list;
}

void restore_takes_back(struct restore *restore, void (*remove)(const char *name), const char *name)
{
	struct takeback *list = list_of(restore);
	size_t size = (sizeof(struct note) + strlen(name) + 1 + 7) / 8 * 8;
	if (!list || sizeof(*list) + list->used + size > ROOM)
		return; /* then it stays where the restore fails */
	uint32_t at = list->used;
	struct note *note = (struct note *)(list->notes + at);
	*note = (struct note){ .earlier = list->last, .made = true, .remove = remove };
	strcpy(note->name, name);
	list->last = at;
	list->used = at + (uint32_t)size;
}

void restore_not_made(struct restore *restore)
{
	struct takeback *list = restore->takebacks;
	if (list && list->used)
		((struct note *)(list->notes + list->last))->made = false;
}

void takeback(struct restore *restore)
{
	if (restore->takebacks)
		remove_all(restore->takebacks);
	takeback_forget(restore);
}

void takeback_keep(struct restore *restore)
{
	if (restore->takebacks)
		restore->takebacks->kept = true;
}

void takeback_forget(struct restore *restore)
{
	struct takeback *list = restore->takebacks;
	if (!list)
		return;
	if (list->guard) {
		kill(list->guard, SIGKILL);
		waitpid(list->guard, NULL, __WALL);
	}
	munmap(list, ROOM);
	restore->takebacks = NULL;
}
