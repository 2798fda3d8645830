/*
 * bulk.c - copying from inside: pages of the target straight into the image's.
 *
 * process_vm_readv(2) finds and pins each page it reads, which takes as long as two thirds of the copying.  A thread
 * in the target's own address space just reads.  Each byte is loaded once: it goes into the sum while it is in a
 * register, and is stored past the cache (non-temporal), which spares reading the line that is overwritten.
 *
 * Vector registers are used here.  So this runs in helpers alone, which a plan has started: theirs hold
 * nothing of the program's.  And what is read or written may go at any moment: a thread of the program unmaps it, when the
 * engine has died; somebody makes the file shorter; the hardware loses a page.  So helpers are processes, with handlers of
 * their own: a fault is the end of one of them, and of nobody else.  The rules of agent.c hold otherwise.
 */
#include <linux/mman.h>
#include <linux/prctl.h>
#include <immintrin.h>

#include "parasite/agent.h"

#define HUGE (2ull << 20) /* the window is aligned like the file, so that a huge page takes one entry */

#define INLINE static inline __attribute__((always_inline))
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f")))

/* --- XXH3-64 of a long input (doc/xxhash_spec.md, "Long input: XXH3") ------------------------------------ */

#define STRIPE 64
#define STRIPES 16		       /* in a unit: one for each 8 bytes of the secret but the last 64 */
#define UNIT (STRIPES * STRIPE)	       /* bytes between two scrambles; a page is four of them */
#define LAST_SECRET (PLAN_BULK_SECRET - STRIPE - 7) /* of the stripe that ends the input */
#define MERGE_SECRET 11

#define PRIME32_1 0x9E3779B1ull
#define PRIME32_2 0x85EBCA77ull
#define PRIME32_3 0xC2B2AE3Dull
#define PRIME64_1 0x9E3779B185EBCA87ull
#define PRIME64_2 0xC2B2AE3D27D4EB4Full
#define PRIME64_3 0x165667B19E3779F9ull
#define PRIME64_4 0x85EBCA77C2B2AE63ull
#define PRIME64_5 0x27D4EB2F165667C5ull
#define AVALANCHE 0x165667919E3779F9ull

#define PREFETCH 1024 /* bytes ahead: the processor's own does not reach beyond the page */

struct sum {
	uint64_t lane[8];
} __attribute__((aligned(64)));

static const struct sum empty_sum = {
	{PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1}};

INLINE uint64_t word(const uint8_t *at)
{
	uint64_t value;
	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}

INLINE uint64_t fold(uint64_t a, uint64_t b)
{
	__uint128_t product = (__uint128_t)a * b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t merge(const struct sum *sum, const uint8_t *secret, uint64_t length)
{
	uint64_t hash = length * PRIME64_1;
	for (int i = 0; i < 8; i += 2)
		hash += fold(sum->lane[i] ^ word(secret + MERGE_SECRET + 8 * i),
			     sum->lane[i + 1] ^ word(secret + MERGE_SECRET + 8 * i + 8));
	hash ^= hash >> 37;
	hash *= AVALANCHE;
	return hash ^ hash >> 32;
}

/* --- a unit, by vectors of either width ----------------------------------------------------------------------- */

AVX512 INLINE __m512i add_512(__m512i sum, __m512i data, const uint8_t *secret)
{
	__m512i key = _mm512_xor_si512(data, _mm512_loadu_si512(secret));
	__m512i product = _mm512_mul_epu32(key, _mm512_srli_epi64(key, 32));
	return _mm512_add_epi64(product, _mm512_add_epi64(sum, _mm512_shuffle_epi32(data, _MM_PERM_BADC)));
}

AVX512 INLINE __m512i scramble_512(__m512i sum, const uint8_t *secret)
{
	const __m512i prime = _mm512_set1_epi64(PRIME32_1);
	__m512i key = _mm512_xor_si512(_mm512_xor_si512(sum, _mm512_srli_epi64(sum, 47)), _mm512_loadu_si512(secret));
	__m512i high = _mm512_mul_epu32(_mm512_srli_epi64(key, 32), prime);
	return _mm512_add_epi64(_mm512_mul_epu32(key, prime), _mm512_slli_epi64(high, 32));
}

AVX512 static void units_512(struct sum *sum, const uint8_t *secret, uint8_t *to, const uint8_t *from, uint64_t bytes,
			     bool ends)
{
	__m512i lanes = _mm512_load_si512(sum->lane);
	for (; bytes; bytes -= UNIT) {
		bool last = ends && bytes == UNIT;
		for (int i = 0; i < STRIPES; i++, from += STRIPE, to += STRIPE) {
			__m512i data = _mm512_loadu_si512(from);
			_mm_prefetch((const char *)from + PREFETCH, _MM_HINT_T0);
			_mm512_stream_si512((void *)to, data);
			lanes = add_512(lanes, data, last && i == STRIPES - 1 ? secret + LAST_SECRET : secret + 8 * i);
		}
		if (!last)
			lanes = scramble_512(lanes, secret + PLAN_BULK_SECRET - STRIPE);
	}
	_mm512_store_si512(sum->lane, lanes);
}

AVX2 INLINE __m256i add_256(__m256i sum, __m256i data, const uint8_t *secret)
{
	__m256i key = _mm256_xor_si256(data, _mm256_loadu_si256((const void *)secret));
	__m256i product = _mm256_mul_epu32(key, _mm256_srli_epi64(key, 32));
	return _mm256_add_epi64(product, _mm256_add_epi64(sum, _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2))));
}

AVX2 INLINE __m256i scramble_256(__m256i sum, const uint8_t *secret)
{
	const __m256i prime = _mm256_set1_epi64x(PRIME32_1);
	__m256i key = _mm256_xor_si256(_mm256_xor_si256(sum, _mm256_srli_epi64(sum, 47)),
				       _mm256_loadu_si256((const void *)secret));
	__m256i high = _mm256_mul_epu32(_mm256_srli_epi64(key, 32), prime);
	return _mm256_add_epi64(_mm256_mul_epu32(key, prime), _mm256_slli_epi64(high, 32));
}

AVX2 static void units_256(struct sum *sum, const uint8_t *secret, uint8_t *to, const uint8_t *from, uint64_t bytes,
			   bool ends)
{
	__m256i low = _mm256_load_si256((const void *)sum->lane);
	__m256i high = _mm256_load_si256((const void *)(sum->lane + 4));
	for (; bytes; bytes -= UNIT) {
		bool last = ends && bytes == UNIT;
		for (int i = 0; i < STRIPES; i++, from += STRIPE, to += STRIPE) {
			const uint8_t *key = last && i == STRIPES - 1 ? secret + LAST_SECRET : secret + 8 * i;
			__m256i a = _mm256_loadu_si256((const void *)from);
			__m256i b = _mm256_loadu_si256((const void *)(from + 32));
			_mm_prefetch((const char *)from + PREFETCH, _MM_HINT_T0);
			_mm256_stream_si256((void *)to, a);
			_mm256_stream_si256((void *)(to + 32), b);
			low = add_256(low, a, key);
			high = add_256(high, b, key + 32);
		}
		if (!last) {
			low = scramble_256(low, secret + PLAN_BULK_SECRET - STRIPE);
			high = scramble_256(high, secret + PLAN_BULK_SECRET - STRIPE + 32);
		}
	}
	_mm256_store_si256((void *)sum->lane, low);
	_mm256_store_si256((void *)(sum->lane + 4), high);
}

/* --- a chunk -------------------------------------------------------------------------------------------------- */

/* What of the pieces is not copied yet. */
struct reading {
	const struct plan_piece *piece;
	uint64_t done; /* bytes of it */
};

static uint64_t copy_block(const struct plan_bulk *bulk, struct reading *reading, uint8_t *to)
{
	struct sum sum = empty_sum;
	for (uint64_t left = PLAN_BULK_BLOCK, now; left; left -= now, to += now) {
		const uint8_t *from = (const uint8_t *)reading->piece->from + reading->done;
		uint64_t rest = reading->piece->bytes - reading->done;
		now = rest < left ? rest : left;
		if (bulk->vectors == VECTORS_AVX512)
			units_512(&sum, bulk->secret, to, from, now, now == left);
		else
			units_256(&sum, bulk->secret, to, from, now, now == left);
		reading->done += now;
		if (reading->done == reading->piece->bytes)
			*reading = (struct reading){reading->piece + 1, 0};
	}
	return merge(&sum, bulk->secret, PLAN_BULK_BLOCK);
}

/* At once, and so that it says so if a page cannot be had: later that would be a signal. */
static bool show(const struct ctl *ctl, const struct plan_bulk *bulk, uint8_t *window, uint64_t offset)
{
	int64_t at = SYSCALL(__NR_mmap, window, bulk->window, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ctl->lent[2],
			     offset);
	return !is_error(at) && !SYSCALL(__NR_madvise, window, bulk->window, MADV_POPULATE_WRITE);
}

static bool copy_chunk(struct ctl *ctl, const struct plan_bulk *bulk, uint32_t number, uint8_t *window)
{
	struct plan_chunk *chunk = (struct plan_chunk *)bulk->chunks + number;
	struct reading reading = {(const struct plan_piece *)bulk->pieces + chunk->first, 0};
	uint64_t blocks = bulk->window / PLAN_BULK_BLOCK;
	uint64_t *sums = (uint64_t *)bulk->sums + number * blocks;
	if (!show(ctl, bulk, window, chunk->offset))
		return false;
	for (uint64_t i = 0; i < blocks; i++) {
		if (load(&ctl->home))
			return false;
		sums[i] = copy_block(bulk, &reading, window + i * PLAN_BULK_BLOCK);
	}
	_mm_sfence(); /* before anybody is told */
	__atomic_store_n(&chunk->copied, 1, __ATOMIC_RELEASE);
	return true;
}

static int64_t copy_chunks(struct ctl *ctl, struct plan_bulk *bulk, uint8_t *window)
{
	for (uint32_t i; (i = __atomic_fetch_add(&bulk->next, 1, __ATOMIC_ACQ_REL)) < bulk->n;) {
		bool copied = copy_chunk(ctl, bulk, i, window);
		add_and_wake(&bulk->done, 1);
		if (!copied)
			return -EIO;
	}
	return 0;
}

/* --- faults ----------------------------------------------------------------------------------------------------- */

#define HANDLER_STACK (64u << 10) /* a signal frame has all of the vector registers: more than AGENT_STACK */

/* struct sigaction and stack_t as the kernel has them. */
struct action {
	uint64_t handler, flags, restorer, mask;
};
struct signal_stack {
	uint64_t base, flags, size;
};

__attribute__((noreturn)) static void on_fault(void)
{
	for (;;)
		SYSCALL(__NR_exit_group, 1);
}

/* Whatever of this is refused: a fault ends the helper then as well, and perhaps leaves a core file. */
static void expect_faults(uint64_t stack)
{
	const struct signal_stack alternate = {.base = stack, .size = HANDLER_STACK};
	uint64_t handler = (uint64_t)on_fault;
	__asm__("" : "+r"(handler)); /* found where it is now: a constant that holds it would have to be relocated */
	const struct action action = {.handler = handler, .flags = SA_ONSTACK | SA_RESTORER, .restorer = handler};
	const uint64_t faults = 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1);
	SYSCALL(__NR_mprotect, stack, HANDLER_STACK, PROT_READ | PROT_WRITE);
	SYSCALL(__NR_sigaltstack, &alternate);
	SYSCALL(__NR_rt_sigaction, SIGSEGV, &action, 0, sizeof(action.mask));
	SYSCALL(__NR_rt_sigaction, SIGBUS, &action, 0, sizeof(action.mask));
	SYSCALL(__NR_rt_sigprocmask, SIG_UNBLOCK, &faults, 0, sizeof(faults));
}

/* The window stays: who started this helper unmaps it when it is gone, however it went. */
int64_t bulk_copy(struct ctl *ctl, struct ctl_task *task, struct plan_bulk *bulk)
{
	uint64_t size = bulk->window + HUGE + HANDLER_STACK;
	if (ctl->lent[2] < 0)
		return -EBADF;
	SYSCALL(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL); /* it has no life without the serving agent */
	int64_t room = SYSCALL(__NR_mmap, 0, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (is_error(room))
		return room;
	task->window_size = size;
	task->window = (uint64_t)room;
	expect_faults((uint64_t)room + bulk->window + HUGE);
	return copy_chunks(ctl, bulk, (uint8_t *)(((uint64_t)room + HUGE - 1) & -HUGE));
}
