#include "restorer/warm_pace.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_US 20000	 /* between two looks at the page cache, at least */
#define LOOK_SHARE 50u	 /* looking takes at most so small a part of the time */
#define QUIET_US 300000	 /* so long without a byte from the disk, and the tree reads no more: the disk may be slow */
#define FADE 0.9	 /* what was a look ago counts less: 0.2 s are remembered */
#define HINTED 32768.0	 /* bytes in that time: from here on one read at a time, so that more would show */
#define NOTICED 262144.0 /* ... from here on we give way */
#define FAIR_SHARE 32	 /* of what the tree takes. A tenth is promised; the rest is for what is on its way */
#define LEAST 262144.0	 /* bytes a second that we take in any case */
#define RAMP 1.15	 /* a look: twice as fast every tenth of a second */
#define FULL 4e9	 /* bytes a second: no disk to be spared */

/* --- small files of /proc -------------------------------------------------------- */

int64_t warm_number_in(const char *path, const char *key)
{
	char text[2048];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (length < 0)
		return -1;
	text[length] = '\0';
	const char *at = strstr(text, key);
	if (!at)
		return -1;
	at += strlen(key);
	while (*at == ' ')
		at++;
	int64_t number = 0;
	for (; *at >= '0' && *at <= '9'; at++)
		number = 10 * number + *at - '0';
	return number;
}

static void io_path(char *path, pid_t pid)
{
	char digits[12];
	int n = 0;
	for (unsigned left = (unsigned)pid; left || n == 0; left /= 10)
		digits[n++] = (char)('0' + left % 10);
	path = stpcpy(path, "/proc/");
	while (n)
		*path++ = digits[--n];
	stpcpy(path, "/io");
}

/* Bytes the tree has had from the disk; -1: it has ended, or may not be asked. */
static int64_t tree_bytes(const struct warm_order *order)
{
	int64_t sum = -1;
	for (size_t i = 0; i < order->n_tree; i++) {
		char path[32];
		io_path(path, order->tree[i]);
		int64_t bytes = warm_number_in(path, "\nread_bytes:");
		if (bytes >= 0)
			sum = (sum < 0 ? 0 : sum) + bytes;
	}
	return sum;
}

/* --- the page cache ---------------------------------------------------------------- */

uint64_t warm_pages_present(int fd, uint64_t offset, uint64_t bytes)
{
	struct {
		uint64_t offset, length;
	} range = { offset, bytes };
	struct {
		uint64_t cached, dirty, writeback, evicted, recently_evicted;
	} stat;
	return syscall(451, fd, &range, &stat, 0) == 0 ? stat.cached : 0;
}

static int64_t pages_of_others(const struct warm_pace *pace)
{
	uint64_t present = 0;
	for (size_t i = 0; i < pace->n_files; i++)
		present += warm_pages_present(pace->files[i], 0, 0);
	return (int64_t)(present - pace->brought);
}

static void name_files(struct warm_pace *pace)
{
	const struct warm_order *order = pace->order;
	for (size_t i = 0; i < order->n && pace->n_files < WARM_FILES; i++) {
		size_t known = 0;
		while (known < pace->n_files && pace->files[known] != order->stretches[i].fd)
			known++;
		if (known == pace->n_files)
			pace->files[pace->n_files++] = order->stretches[i].fd;
	}
}

/* --- looking ------------------------------------------------------------------------- */

static uint64_t clock_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void warm_pace_begin(struct warm_pace *pace, const struct warm_order *order, uint64_t now)
{
	*pace = (struct warm_pace){ .order = order, .look_us = LOOK_US };
	if (!order->n_tree || order->rate)
		return;
	name_files(pace);
	pace->others = pages_of_others(pace);
	pace->looked_us = now;
}

/* Both at once, so that they speak of the same time. What is under way to us is missing for a moment: only what is
 * more than ever before has been brought by others. */
static void compare(struct warm_pace *pace, uint64_t now)
{
	int64_t others = pages_of_others(pace), more = others - pace->others;
	pace->tree = FADE * pace->tree + (double)(pace->bytes - pace->counted);
	pace->list = FADE * pace->list + (more > 0 ? (double)more * WARM_PAGE : 0);
	pace->seconds = FADE * pace->seconds + (double)(now - pace->looked_us) / 1e6;
	pace->others = more > 0 ? others : pace->others;
	pace->counted = pace->bytes;
	pace->looked_us = now;
	uint64_t took = clock_us() - now;
	pace->look_us = took * LOOK_SHARE > LOOK_US ? took * LOOK_SHARE : LOOK_US;
}

static void decide(struct warm_pace *pace, uint64_t now)
{
	bool reads_list = pace->list >= pace->tree / 2;
	pace->reads = pace->read_us && now - pace->read_us < QUIET_US;
	pace->careful = pace->reads && pace->tree > HINTED && !reads_list;
	pace->yields = pace->careful && pace->tree > NOTICED;
	if (pace->yields)
		pace->ramp = pace->tree / pace->seconds / FAIR_SHARE + LEAST;
	else if ((pace->ramp *= RAMP) > FULL || (pace->reads && reads_list))
		pace->ramp = 0;
}

void warm_pace_look(struct warm_pace *pace, uint64_t now)
{
	if (!pace->order->n_tree)
		return;
	int64_t bytes = tree_bytes(pace->order);
	/* Who may not be asked for a while (it changes its credentials) has not ended. */
	pace->ended = pace->met && bytes < 0 && kill(pace->order->tree[0], 0) < 0 && errno == ESRCH;
	if (bytes < 0)
		return;
	if (!pace->met)
		pace->counted = pace->bytes = (uint64_t)bytes;
	pace->met = true;
	if ((uint64_t)bytes > pace->bytes)
		pace->read_us = now;
	/* Less: one of its processes has ended. */
	pace->bytes = (uint64_t)bytes;
	if (pace->counted > pace->bytes)
		pace->counted = pace->bytes;
	if (pace->order->rate || now - pace->looked_us < pace->look_us)
		return;
	compare(pace, now);
	decide(pace, now);
}

/* --- pace ------------------------------------------------------------------------------ */

void warm_pace_next(struct warm_pace *pace, uint64_t now, uint64_t pages, uint64_t bytes)
{
	double rate = pace->order->rate ? (double)pace->order->rate : pace->ramp;
	uint64_t from = pace->allowed_us > now ? pace->allowed_us : now;
	pace->brought += pages;
	pace->allowed_us = rate > 0 ? from + (uint64_t)((double)bytes * 1e6 / rate) : now;
}

bool warm_pace_slow(const struct warm_pace *pace, uint64_t now)
{
	return pace->allowed_us > now || pace->careful || pace->ramp > 0;
}
