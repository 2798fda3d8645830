#include "specimen.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

enum { BROKEN = 99, SKIP = 77 };

static int round_number;
static bool last_round;
static int failures;

/* --- files ------------------------------------------------------------------ */

static const char *work(void)
{
	const char *dir = getenv("FSNAP_WORK");
	if (!dir || dir[0] != '/') {
		fputs("specimen: FSNAP_WORK is not set; start me with tests/run-specimen\n",
		      stderr);
		_exit(BROKEN);
	}
	return dir;
}

char *specimen_path(const char *format, ...)
{
	char name[128];
	va_list args;
	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	size_t size = strlen(work()) + strlen(name) + 2;
	char *path = malloc(size);
	if (!path)
		specimen_broken(__FILE__, __LINE__, "malloc", errno);
	snprintf(path, size, "%s/%s", work(), name);
	return path;
}

static void append(const char *path, const char *text)
{
	/* O_APPEND and one write: lines of several processes do not mix. */
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	size_t length = strlen(text);
	if (fd < 0 || write(fd, text, length) != (ssize_t)length)
		_exit(BROKEN);
	close(fd);
}

static void mark(const char *name, const char *text)
{
	char *path = specimen_path("%s.%d", name, round_number);
	append(path, text);
	free(path);
}

static void wait_for_go(void)
{
	char *path = specimen_path("go.%d", round_number);
	char word[8] = "";
	for (;;) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			ssize_t n = read(fd, word, sizeof(word) - 1);
			close(fd);
			if (n >= 4)
				break;
		}
		sleep_ms(2);
	}
	free(path);
	last_round = memcmp(word, "last", 4) == 0;
}

/* --- rounds ------------------------------------------------------------------ */

bool specimen_round(void)
{
	if (round_number)
		mark("done", "done\n");
	if (last_round)
		return false;
	round_number++;
	return true;
}

void specimen_ready(void)
{
	mark("ready", "ready\n");
	wait_for_go();
}

int specimen_number(void)
{
	return round_number;
}

int specimen_end(void)
{
	return failures ? 1 : 0;
}

bool specimen_child_round(void)
{
	/* The parent may have played rounds before it forked us: last_round tells. */
	static bool inside;
	if (inside) {
		mark("part", "+");
		if (last_round)
			return false;
		round_number++;
	} else if (!round_number) {
		round_number = 1;
	}
	inside = true;
	wait_for_go();
	return true;
}

void specimen_await(int n)
{
	char *path = specimen_path("part.%d", round_number);
	struct stat st;
	while (stat(path, &st) < 0 || st.st_size < n)
		sleep_ms(2);
	free(path);
}

/* --- expectations -------------------------------------------------------------- */

static bool verdict(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool verdict(bool good, const char *format, ...)
{
	char text[900];
	int used = snprintf(text, sizeof(text) - 1, "%s round %d pid %ld: ", good ? "ok" : "FAIL",
			    round_number, syscall(SYS_gettid));
	va_list args;
	va_start(args, format);
	int more = vsnprintf(text + used, sizeof(text) - 1 - (size_t)used, format, args);
	va_end(args);
	used += more;
	if ((size_t)used > sizeof(text) - 2)
		used = sizeof(text) - 2;
	text[used] = '\n';
	text[used + 1] = '\0';
	char *path = specimen_path("result");
	append(path, text);
	free(path);
	if (!good)
		__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
	return good;
}

bool expect_int(const char *what, long long expected, long long seen)
{
	return verdict(expected == seen, "%s: expected %lld, seen %lld", what, expected, seen);
}

bool expect_hex(const char *what, unsigned long long expected, unsigned long long seen)
{
	return verdict(expected == seen, "%s: expected 0x%llx, seen 0x%llx", what, expected, seen);
}

bool expect_between(const char *what, long long low, long long high, long long seen)
{
	return verdict(low <= seen && seen <= high, "%s: expected %lld..%lld, seen %lld", what, low,
		       high, seen);
}

bool expect_text(const char *what, const char *expected, const char *seen)
{
	return verdict(strcmp(expected, seen) == 0, "%s: expected \"%s\", seen \"%s\"", what,
		       expected, seen);
}

bool expect_bytes(const char *what, const void *expected, const void *seen, size_t size)
{
	const unsigned char *want = expected, *have = seen;
	size_t at = 0;
	while (at < size && want[at] == have[at])
		at++;
	if (at == size)
		return verdict(true, "%s: expected and seen %zu equal bytes", what, size);
	return verdict(false, "%s: first difference at byte %zu of %zu: expected %02x, seen %02x",
		       what, at, size, want[at], have[at]);
}

bool expect_zero(const char *what, const void *seen, size_t size)
{
	const unsigned char *have = seen;
	size_t at = 0;
	while (at < size && !have[at])
		at++;
	if (at == size)
		return verdict(true, "%s: expected and seen %zu zero bytes", what, size);
	return verdict(false, "%s: byte %zu of %zu: expected 00, seen %02x", what, at, size,
		       have[at]);
}

bool expect_ok(const char *what, long long seen)
{
	if (seen == -1)
		return verdict(false, "%s: expected success, seen %s", what, strerror(errno));
	return verdict(true, "%s: expected success, seen %lld", what, seen);
}

bool expect_errno(const char *what, int expected, long long seen)
{
	int error = errno;
	if (seen != -1)
		return verdict(false, "%s: expected %s, seen success (%lld)", what,
			       strerror(expected), seen);
	return verdict(error == expected, "%s: expected errno %d, seen %d", what, expected, error);
}

/* --- patterns -------------------------------------------------------------------- */

/* The word at this position; odd multipliers keep neighbouring words and seeds apart. */
static uint64_t pattern_word(uint64_t seed, size_t index)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u + index * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 29;
}

void pattern_fill(void *to, size_t size, uint64_t seed)
{
	unsigned char *at = to;
	for (size_t done = 0; done < size; done += 8) {
		uint64_t word = pattern_word(seed, done / 8);
		memcpy(at + done, &word, size - done < 8 ? size - done : 8);
	}
}

bool expect_pattern(const char *what, const void *seen, size_t size, uint64_t seed)
{
	const unsigned char *have = seen;
	for (size_t done = 0; done < size; done += 8) {
		uint64_t word = pattern_word(seed, done / 8);
		size_t n = size - done < 8 ? size - done : 8;
		if (memcmp(have + done, &word, n) != 0)
			return expect_bytes(what, &word, have + done, n) ||
			       verdict(false,
				       "%s: the difference is in the word at byte %zu of %zu", what,
				       done, size);
	}
	return verdict(true, "%s: expected and seen pattern %llu in %zu bytes", what,
		       (unsigned long long)seed, size);
}

/* --- set-up ------------------------------------------------------------------------ */

void specimen_broken(const char *file, int line, const char *step, int error)
{
	fprintf(stderr, "%s:%d: the specimen cannot be set up: %s: %s\n", file, line, step,
		strerror(error));
	fflush(stderr);
	_exit(BROKEN);
}

void specimen_skip(const char *format, ...)
{
	char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	append(specimen_path("skip"), text);
	_exit(SKIP);
}

void sleep_ms(long ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000 };
	nanosleep(&left, NULL);
}

long patient_ms(long ms)
{
	const char *patience = getenv("SPECIMEN_PATIENCE");
	return patience ? ms * atoi(patience) : ms;
}

long long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static char task_state(pid_t tid)
{
	char path[64], text[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '?';
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	const char *after_comm = strrchr(text, ')');
	return after_comm && after_comm[1] ? after_comm[2] : '?';
}

void until_asleep(pid_t tid)
{
	/* One sighting may be a page fault or a lock on the way: several in a row are the call. */
	for (int sightings = 0; sightings < 4;) {
		sightings = task_state(tid) == 'S' ? sightings + 1 : 0;
		sleep_ms(1);
	}
}

struct start {
	void *(*call)(void *);
	void *arg;
	pid_t tid;
};

static void *announce(void *arg)
{
	struct start *start = arg;
	struct start mine = *start;
	__atomic_store_n(&start->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	return mine.call(mine.arg);
}

pthread_t start_blocked(void *(*call)(void *), void *arg)
{
	struct start start = { call, arg, 0 };
	pthread_t thread;
	MUST_ZERO(pthread_create(&thread, NULL, announce, &start));
	pid_t tid;
	while ((tid = __atomic_load_n(&start.tid, __ATOMIC_ACQUIRE)) == 0)
		sleep_ms(1);
	until_asleep(tid);
	return thread;
}

const char *specimen_mode(void)
{
	const char *mode = getenv("SPECIMEN_MODE");
	return mode ? mode : "control";
}

bool specimen_dies(void)
{
	const char *mode = specimen_mode();
	if (strcmp(mode, "live") == 0)
		return round_number == 2;
	return strcmp(mode, "control") != 0 && strcmp(mode, "left-running") != 0;
}

const char *proc_field(const char *path, const char *key, char *buf, size_t size)
{
	char text[16384];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	snprintf(buf, size, "(no %s)", key);
	size_t length = strlen(key);
	for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
		if (strncmp(line, key, length) != 0 || line[length] != ':')
			continue;
		char *value = line + length + 1;
		value += strspn(value, " \t");
		snprintf(buf, size, "%.*s", (int)strcspn(value, "\n"), value);
		break;
	}
	return buf;
}
