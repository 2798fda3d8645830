/*
 * starve.c - linked into fsnap-starved, which is fsnap whose N-th allocation fails: tests/sweep/starved.py.
 *
 * The linker leads all calls of the allocator here, those of libraries and of libc's archive, too. What is to fail, and
 * what has happened, stands in the file that $FSNAP_STARVE names; children of fsnap count in it with their parent.
 */
#include <capstone/capstone.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PLACES 8192
#define CALLERS 5
#define STACK_MOST (1u << 20)

struct ration {
	uint64_t failing; /* the number of the allocation; 0: none */
	uint64_t count;
	uint64_t failed;
	/* By where it is made, and who called whom to make it; as in sweep/programs/site.h. */
	uint64_t failing_place; /* 0: none */
	uint64_t listing;	/* whether places are written down */
	uint64_t places[PLACES];
};

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

void starve_end(void);

struct bpf_object_skeleton;
struct bpf_object_open_opts;
int __real_bpf_object__open_skeleton(struct bpf_object_skeleton *skeleton, const struct bpf_object_open_opts *options);
int __wrap_bpf_object__open_skeleton(struct bpf_object_skeleton *skeleton, const struct bpf_object_open_opts *options);
int __real_bpf_object__load_skeleton(struct bpf_object_skeleton *skeleton);
int __wrap_bpf_object__load_skeleton(struct bpf_object_skeleton *skeleton);

int __real_pthread_once(pthread_once_t *once, void (*begin)(void));
int __wrap_pthread_once(pthread_once_t *once, void (*begin)(void));

static struct ration *ration;
static int callers = CALLERS;
static _Thread_local unsigned spared;

/* Nor does libbpf (1.1.0): what could not be had while it opened programs is used when it loads them. */
int __wrap_bpf_object__open_skeleton(struct bpf_object_skeleton *skeleton, const struct bpf_object_open_opts *options)
{
	spared++;
	int result = __real_bpf_object__open_skeleton(skeleton, options);
	spared--;
	return result;
}

int __wrap_bpf_object__load_skeleton(struct bpf_object_skeleton *skeleton)
{
	spared++;
	int result = __real_bpf_object__load_skeleton(skeleton);
	spared--;
	return result;
}

/* Nor does libpmem2 (1.12.1): it calls abort(3) where it cannot begin (pmem2_map_init()), of which a few dozen bytes are all. */
int __wrap_pthread_once(pthread_once_t *once, void (*begin)(void))
{
	spared++;
	int result = __real_pthread_once(once, begin);
	spared--;
	return result;
}

/* What counts lines (coverage.c) writes them down when a process ends, and cannot go without memory then. */
void starve_end(void)
{
	ration = NULL;
}

/* capstone (4.0.2) does not look at what it gets: X86_init() writes through NULL. Its allocations do not count. */
static void spare_capstone(void)
{
	cs_opt_mem own = { __real_malloc, __real_calloc, __real_realloc, free, vsnprintf };
	cs_option(0, CS_OPT_MEM, (size_t)&own);
}

__attribute__((constructor)) static void begin(void)
{
	spare_capstone();
	atexit(starve_end);
	const char *path = getenv("FSNAP_STARVE"), *wanted = getenv("FSNAP_SWEEP_CALLERS");
	if (wanted)
		callers = atoi(wanted);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*ration), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (at != MAP_FAILED)
		ration = at;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9E3779B97F4A7C15ull;
	return hash ^ hash >> 29;
}

/* Libraries use the register that holds frames for other things: whatever it says, nothing but our stack is read. */
static uint64_t place_of(const uintptr_t *frame)
{
	extern void *__libc_stack_end;
	uintptr_t end = (uintptr_t)__libc_stack_end, at = (uintptr_t)frame;
	uint64_t hash = mix(2, frame[1]);
	if (at > end || end - at > STACK_MOST) /* another thread's */
		return hash;
	for (int i = 0; i < callers && frame[0] > at && frame[0] < end - 16 && frame[0] % 8 == 0; i++) {
		frame = (const uintptr_t *)frame[0];
		at = (uintptr_t)frame;
		hash = mix(hash, frame[1]);
	}
	return hash;
}

static void list_place(uint64_t place)
{
	for (size_t i = place % PLACES;; i = (i + 1) % PLACES) {
		uint64_t none = 0;
		if (__atomic_compare_exchange_n(&ration->places[i], &none, place, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED) ||
		    none == place)
			return;
	}
}

/* The first from a place is: what fails once is not tried for ever. */
static int is_failing(const uintptr_t *frame)
{
	if (__atomic_add_fetch(&ration->count, 1, __ATOMIC_RELAXED) == ration->failing)
		return 1;
	if (ration->listing)
		list_place(place_of(frame));
	return ration->failing_place && !ration->failed && place_of(frame) == ration->failing_place;
}

static int refused(const void *frame)
{
	if (!ration || spared || !is_failing(frame))
		return 0;
	ration->failed = 1;
	errno = ENOMEM;
	return 1;
}

void *__wrap_malloc(size_t size)
{
	return refused(__builtin_frame_address(0)) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return refused(__builtin_frame_address(0)) ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return refused(__builtin_frame_address(0)) ? NULL : __real_realloc(old, size);
}
