/*
 * site.h - where in a command a system call is made: the call, and who called whom to make it.
 *
 * A number that is the same in each run of the same build, by which calls from different places are told apart. It is
 * right where frames have pointers (the presets debug and coverage); elsewhere the callers are guessed, and some places
 * seem one, or one seems several.
 * FSNAP_SWEEP_CALLERS=N in the environment: so many callers tell places apart, instead of SITE_CALLERS. With one, each call
 * has a place for each line that its function is called from, which is enough to run whatever follows upon its failure there.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#define SITE_CALLERS 5
#define SITE_STACK 4096 /* words */

struct site_text {
	uint64_t base, start, end; /* of the program; base: what addresses are told from */
};

/* The program's own code: its first executable mapping. */
static struct site_text site_text(pid_t pid)
{
	struct site_text text = { 0 };
	char path[64], line[512], mode[5];
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "r");
	while (maps && !text.start && fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) != 3)
			break;
		if (!text.base)
			text.base = start;
		if (mode[2] == 'x')
			text.start = start, text.end = end;
	}
	if (maps)
		fclose(maps);
	return text;
}

struct site_stack {
	uint64_t at, words[SITE_STACK];
	size_t n;
};

/* The word at this address, if the stack that was read has it. */
static uint64_t site_word(const struct site_stack *stack, uint64_t address)
{
	return address >= stack->at && address % 8 == 0 && (address - stack->at) / 8 < stack->n
	       ? stack->words[(address - stack->at) / 8] : 0;
}

static int site_is_code(const struct site_text *text, uint64_t address)
{
	return address >= text->start && address < text->end;
}

/* A frame begins with the caller's frame, which is further up, and the address to return to. */
static int site_is_frame(const struct site_text *text, const struct site_stack *stack, uint64_t address)
{
	return site_word(stack, address) > address && site_is_code(text, site_word(stack, address + 8));
}

static void site_read(pid_t tid, uint64_t from, struct site_stack *stack)
{
	stack->at = from & ~7ull;
	struct iovec to = { stack->words, sizeof(stack->words) };
	ssize_t got = -1;
	for (; got < 0 && to.iov_len >= 4096; to.iov_len /= 2) { /* it may end sooner */
		struct iovec what = { (void *)stack->at, to.iov_len };
		got = process_vm_readv(tid, &to, 1, &what, 1, 0);
	}
	stack->n = got < 0 ? 0 : (size_t)got / 8;
}

static uint64_t site_mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9E3779B97F4A7C15ull;
	return hash ^ hash >> 29;
}

static int site_callers(void)
{
	const char *wanted = getenv("FSNAP_SWEEP_CALLERS");
	return wanted ? atoi(wanted) : SITE_CALLERS;
}

/* Of the thread that stands before this call. */
static uint64_t site_of(pid_t tid, const struct user_regs_struct *regs, const struct site_text *text)
{
	static struct site_stack stack;
	site_read(tid, regs->rsp, &stack);
	uint64_t hash = site_mix(1, regs->orig_rax), frame = regs->rbp, innermost = site_word(&stack, stack.at);
	if (site_is_code(text, innermost))
		hash = site_mix(hash, innermost - text->base);
	/* Functions of the C library use that register for other things: the first frame above theirs. */
	if (!site_is_frame(text, &stack, frame))
		for (frame = stack.at; frame < stack.at + 8 * stack.n && !site_is_frame(text, &stack, frame);)
			frame += 8;
	for (int i = 0, n = site_callers(); i < n && site_is_frame(text, &stack, frame); i++) {
		hash = site_mix(hash, site_word(&stack, frame + 8) - text->base);
		frame = site_word(&stack, frame);
	}
	return hash;
}
