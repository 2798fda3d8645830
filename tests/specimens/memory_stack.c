/*
 * Deep recursion is dumped at its bottom: every frame still holds what it held
 * and returns to its caller; the stack can grow further afterwards.
 */
#include "specimen.h"

enum { DEPTH = 2000, FRAME = 1024 };

static __attribute__((noinline)) unsigned long descend(unsigned depth)
{
	volatile unsigned char frame[FRAME];
	for (unsigned i = 0; i < FRAME; i++)
		frame[i] = (unsigned char)(depth * 31 + i);
	unsigned long sum;
	if (depth == 0) {
		specimen_ready();
		sum = 0;
	} else {
		sum = descend(depth - 1);
	}
	for (unsigned i = 0; i < FRAME; i++)
		if (frame[i] != (unsigned char)(depth * 31 + i))
			return expect_int("depth of a damaged frame", -1, depth), 0;
	return sum + depth;
}

static __attribute__((noinline)) unsigned grow(unsigned depth)
{
	volatile char frame[4096];
	frame[0] = (char)depth;
	frame[4095] = frame[0];
	return depth ? grow(depth - 1) + (frame[4095] == (char)depth) : 0;
}

int main(void)
{
	while (specimen_round()) {
		expect_int("sum over all frames", (long long)DEPTH * (DEPTH + 1) / 2,
			   (long long)descend(DEPTH));
		expect_int("growing the stack by 4 MiB", 1000, grow(1000));
	}
	return specimen_end();
}
