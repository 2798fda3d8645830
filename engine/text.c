#include "engine/text.h"

#include <capstone/capstone.h>
#include <emmintrin.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHUNK (16u << 10) /* fits into what is quick: fresh memory costs more than another call */
#define LONGEST 9u /* bytes of the longest sequence: mov $15, %rax; syscall */

enum gadget { SYSCALL_RET, SIGRETURN, SYSCALL_ANY, GADGETS };
#define ALL_GADGETS ((1u << GADGETS) - 1)
#define NOT_THERE UINT64_MAX

/* What is known of one executable mapping of a file, whichever process maps it. */
struct text_known {
	unsigned object;
	uint64_t offset; /* where in the file the mapping starts */
	uint64_t size;
	unsigned answered;	   /* bits of enum gadget */
	uint64_t found[GADGETS]; /* from the start of the mapping, or NOT_THERE */
};

/* One text_find(). */
struct search {
	pid_t pid;
	struct text_cache *cache;
	uint64_t found[GADGETS]; /* addresses */
	unsigned missing;	 /* bits */
	int error;		 /* errno of the last read that gave nothing */
	size_t bytes;		 /* read in all */
};

void text_cache_free(struct text_cache *cache)
{
	if (cache->disassembler)
		cs_close(&cache->disassembler);
	if (cache->detailed)
		cs_close(&cache->detailed);
	free(cache->buffer);
	free(cache->known);
	*cache = (struct text_cache){ 0 };
}

static bool disassembler_open(struct text_cache *cache)
{
	return cache->disassembler ||
	       cs_open(CS_ARCH_X86, CS_MODE_64, &cache->disassembler) == CS_ERR_OK;
}

static size_t read_text(struct search *search, uint64_t address, uint8_t *to, size_t n)
{
	struct iovec local = { to, n };
	struct iovec remote = { (void *)(uintptr_t)address, n };
	ssize_t got = process_vm_readv(search->pid, &local, 1, &remote, 1, 0);

	if (got <= 0) {
		search->error = got < 0 ? errno : EFAULT;
		return 0;
	}
	search->bytes += (size_t)got;
	return (size_t)got;
}

/* The next 0f 05 in text[from..n), or n. Text is searched at several bytes per cycle: a libc is
 * more than a megabyte, and the search delays the dump. */
static size_t next_syscall(const uint8_t *text, size_t from, size_t n)
{
	const __m128i first = _mm_set1_epi8(0x0f);
	const __m128i second = _mm_set1_epi8(0x05);
	size_t i = from;

	for (; i + 17 <= n; i += 16) {
		__m128i here = _mm_loadu_si128((const __m128i *)(text + i));
		__m128i after = _mm_loadu_si128((const __m128i *)(text + i + 1));
		int hits = _mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(here, first),
							   _mm_cmpeq_epi8(after, second)));
		if (hits)
			return i + (size_t)__builtin_ctz((unsigned)hits);
	}
	for (; i + 2 <= n; i++)
		if (text[i] == 0x0f && text[i + 1] == 0x05)
			return i;
	return n;
}

/* Bytes of `mov $15, %eax|%rax` right before text[at], 0 if that is not what stands there. */
static size_t mov_15_before(const uint8_t *text, size_t at)
{
	static const uint8_t mov_rax[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0 };
	static const uint8_t mov_eax[] = { 0xb8, 0x0f, 0, 0, 0 };

	if (at >= sizeof(mov_rax) && !memcmp(text + at - sizeof(mov_rax), mov_rax, sizeof(mov_rax)))
		return sizeof(mov_rax);
	if (at >= sizeof(mov_eax) && !memcmp(text + at - sizeof(mov_eax), mov_eax, sizeof(mov_eax)))
		return sizeof(mov_eax);
	return 0;
}

/* What the processor does from an address on is decided by the bytes there, whatever instructions they were
 * meant to be part of: no disassembler needs to look (tests/unit/test_text_register.c has one confirm it). */
static void candidate(struct search *search, enum gadget gadget, uint64_t address)
{
	if (!(search->missing & 1u << gadget))
		return;
	search->found[gadget] = address;
	search->missing &= ~(1u << gadget);
}

static bool is_gadget(enum gadget gadget, const uint8_t *text, size_t n)
{
	switch (gadget) {
	case SYSCALL_RET:
		return n >= 3 && !memcmp(text, "\x0f\x05\xc3", 3);
	case SIGRETURN:
		return (n >= 7 && text[5] == 0x0f && text[6] == 0x05 && mov_15_before(text, 5) == 5) ||
		       (n >= 9 && text[7] == 0x0f && text[8] == 0x05 && mov_15_before(text, 7) == 7);
	case SYSCALL_ANY:
		return n >= 2 && !memcmp(text, "\x0f\x05", 2);
	case GADGETS:
		break;
	}
	return false;
}

static void search_bytes(struct search *search, const uint8_t *text, size_t n, uint64_t address)
{
	for (size_t at = 0; search->missing; at++) {
		at = next_syscall(text, at, n);
		if (at == n)
			return;
		size_t before = mov_15_before(text, at);
		if (before)
			candidate(search, SIGRETURN, address + at - before);
		if (at + 2 < n && text[at + 2] == 0xc3)
			candidate(search, SYSCALL_RET, address + at);
		candidate(search, SYSCALL_ANY, address + at);
	}
}

/* Chunks overlap by what a sequence cut in two needs. A hole (a file shorter than its mapping)
 * ends the search of the mapping. */
static void search_mapping(struct search *search, const image_vma *vma)
{
	uint64_t at = vma->start;

	while (search->missing && at < vma->end) {
		size_t want = vma->end - at < CHUNK ? (size_t)(vma->end - at) : CHUNK;
		size_t got = read_text(search, at, search->cache->buffer, want);

		search_bytes(search, search->cache->buffer, got, at);
		if (got < want || at + got == vma->end)
			return;
		at += got - (LONGEST - 1);
	}
}

/* --- what is known already ------------------------------------------------------ */

static struct text_known *known_mapping(struct text_cache *cache, const image_vma *vma)
{
	for (size_t i = 0; i < cache->n_known; i++) {
		struct text_known *known = &cache->known[i];
		if (known->object == vma->object && known->offset == vma->offset &&
		    known->size == vma->end - vma->start)
			return known;
	}
	if (cache->n_known % 16 == 0) {
		struct text_known *more = realloc(cache->known,
						  (cache->n_known + 16) * sizeof(*more));
		if (!more)
			return NULL; /* then it is searched again next time */
		cache->known = more;
	}
	struct text_known *known = &cache->known[cache->n_known++];
	*known = (struct text_known){
		.object = vma->object, .offset = vma->offset, .size = vma->end - vma->start
	};
	return known;
}

/* Takes over what another process' search found, if these bytes are here too: a private mapping
 * may differ from its file. */
static void use_known(struct search *search, const struct text_known *known, const image_vma *vma)
{
	for (unsigned gadget = 0; gadget < GADGETS; gadget++) {
		uint8_t text[LONGEST];

		if (!(search->missing & known->answered & 1u << gadget) ||
		    known->found[gadget] == NOT_THERE)
			continue;
		uint64_t address = vma->start + known->found[gadget];
		size_t room = (size_t)(vma->end - address);
		size_t got = read_text(search, address, text, room < LONGEST ? room : LONGEST);
		if (is_gadget(gadget, text, got))
			candidate(search, gadget, address);
	}
}

static void remember(const struct search *search, struct text_known *known, const image_vma *vma,
		     unsigned sought)
{
	for (unsigned gadget = 0; gadget < GADGETS; gadget++) {
		if (!(sought & 1u << gadget))
			continue;
		known->answered |= 1u << gadget;
		known->found[gadget] = search->missing & 1u << gadget ?
					       NOT_THERE :
					       search->found[gadget] - vma->start;
	}
}

static void search_file(struct search *search, const image_vma *vma)
{
	struct text_known *known = vma->object ? known_mapping(search->cache, vma) : NULL;
	unsigned sought = search->missing;

	if (known) {
		use_known(search, known, vma);
		if (!(search->missing & ~known->answered))
			return;
		sought = search->missing;
	}
	search_mapping(search, vma);
	if (known)
		remember(search, known, vma, sought);
}

/* --- the order of search --------------------------------------------------------- */

static bool searchable(const image_vma *vma, image_vma_kind kind)
{
	if (vma->kind != kind || (vma->prot & (PROT_READ | PROT_EXEC)) != (PROT_READ | PROT_EXEC))
		return false;
	/* Of the kernel's own mappings only the vDSO has text that may be entered anywhere. */
	return kind != VMA_SPECIAL || !strcmp(vma->name, "[vdso]");
}

int text_find(pid_t pid, const image_vma *vmas, size_t n, struct text_gadgets *out,
	      struct text_cache *cache, struct fsnap_error *err)
{
	static const image_vma_kind order[] = { VMA_FILE, VMA_SPECIAL, VMA_ANON };
	struct search search = { .pid = pid, .cache = cache, .missing = ALL_GADGETS };

	*out = (struct text_gadgets){ 0 };
	if (!cache->buffer && !(cache->buffer = malloc(CHUNK)))
		return fail(err, FSNAP_E_NOMEM, 0, "no memory to look at the text of process %d", pid);

	/* From the top down: the kernel maps the dynamic linker first, hence highest, and glibc's
	 * and musl's hold all three in little text. */
	for (size_t kind = 0; kind < 3 && search.missing; kind++) {
		for (size_t i = n; i-- > 0 && search.missing;) {
			if (!searchable(&vmas[i], order[kind]))
				continue;
			if (order[kind] == VMA_FILE)
				search_file(&search, &vmas[i]);
			else
				search_mapping(&search, &vmas[i]);
		}
	}
	if (!search.bytes && (search.error == ESRCH || search.error == EPERM))
		return fail(err, search.error == ESRCH ? FSNAP_E_TARGET_DIED : FSNAP_E_PERMISSION,
			    search.error, "process %d: reading its text", pid);
	out->syscall_ret = search.found[SYSCALL_RET];
	out->sigreturn = search.found[SIGRETURN];
	out->syscall_any = search.found[SYSCALL_ANY];
	return 0;
}

bool text_is_there(const struct text_gadgets *text, int mem)
{
	uint8_t seen[LONGEST];
	uint64_t call = text->syscall_ret ? text->syscall_ret : text->syscall_any;
	size_t length = text->syscall_ret ? 3 : 2;

	if (pread(mem, seen, length, (off_t)call) != (ssize_t)length ||
	    memcmp(seen, "\x0f\x05\xc3", length))
		return false;
	if (!text->sigreturn)
		return true;
	return pread(mem, seen, LONGEST, (off_t)text->sigreturn) == LONGEST &&
	       (mov_15_before(seen, LONGEST - 2) || mov_15_before(seen, LONGEST - 4));
}

size_t text_instruction(struct text_cache *cache, const uint8_t *bytes, size_t n,
			uint64_t address, char *buf, size_t size)
{
	cs_insn *instruction;
	size_t length = 0;

	if (!disassembler_open(cache) ||
	    cs_disasm(cache->disassembler, bytes, n, address, 1, &instruction) != 1) {
		snprintf(buf, size, "(bad)");
		return 0;
	}
	snprintf(buf, size, "%s%s%s", instruction->mnemonic, instruction->op_str[0] ? " " : "",
		 instruction->op_str);
	length = instruction->size;
	cs_free(instruction, 1);
	return length;
}
