/*
 * A thread spins on a memory word and holds known values in all general
 * registers, all vector registers the CPU has (xmm, ymm, zmm and masks), MXCSR
 * and the x87 stack and control word. It never enters the kernel by itself;
 * all values are there when the word tells it to stop.
 *
 * harness: musl
 */
#include "specimen.h"

#define PART __attribute__((visibility("hidden"), aligned(64)))

#define SIXTEEN "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"

enum { SSE, AVX, AVX512 };

/* Read and written by the code below; hidden, so that %rip reaches them. */
PART uint64_t general_in[14], general_out[14];
PART uint8_t vector_in[32 * 64], vector_out[32 * 64];
PART uint64_t mask_in[8], mask_out[8];
PART long double float_in[4] = { 3.25L, -1e4000L, 7.0L / 3, 0x1.8p-16000L }, float_out[4];
PART uint32_t mxcsr_in = 0x1f80 | 0x6000 | 0x8000, mxcsr_out, mxcsr_default = 0x1f80;
PART uint16_t control_in = 0x077f, control_out; /* toward minus infinity, 53 bits */
PART volatile int stop_spinning, spinning, level;
void spin_with_registers(void);

__asm__(".text\n"
	"spin_with_registers:\n\t"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n\t"
	"fldcw control_in(%rip)\n\t"
	"ldmxcsr mxcsr_in(%rip)\n\t"
	".irp i,0,1,2,3\n\t"
	"fldt \\i*16+float_in(%rip)\n\t"
	".endr\n\t"
	"cmpl $1, level(%rip)\n\t"
	"je 1f\n\t"
	"jg 2f\n\t"
	".irp i," SIXTEEN "\n\t"
	"movdqu \\i*64+vector_in(%rip), %xmm\\i\n\t"
	".endr\n\t"
	"jmp 3f\n"
	"1:\n\t"
	".irp i," SIXTEEN "\n\t"
	"vmovdqu \\i*64+vector_in(%rip), %ymm\\i\n\t"
	".endr\n\t"
	"jmp 3f\n"
	"2:\n\t"
	".irp i," SIXTEEN ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"
	"vmovdqu64 \\i*64+vector_in(%rip), %zmm\\i\n\t"
	".endr\n\t"
	".irp i,0,1,2,3,4,5,6,7\n\t"
	"kmovq \\i*8+mask_in(%rip), %k\\i\n\t"
	".endr\n"
	"3:\n\t"
	"mov 0+general_in(%rip), %rax; mov 8+general_in(%rip), %rbx\n\t"
	"mov 16+general_in(%rip), %rcx; mov 24+general_in(%rip), %rdx\n\t"
	"mov 32+general_in(%rip), %rsi; mov 40+general_in(%rip), %rdi\n\t"
	"mov 48+general_in(%rip), %rbp; mov 56+general_in(%rip), %r8\n\t"
	"mov 64+general_in(%rip), %r9; mov 72+general_in(%rip), %r10\n\t"
	"mov 80+general_in(%rip), %r11; mov 88+general_in(%rip), %r12\n\t"
	"mov 96+general_in(%rip), %r13; mov 104+general_in(%rip), %r14\n\t"
	"movl $1, spinning(%rip)\n"
	"4: pause\n\t"
	"cmpl $0, stop_spinning(%rip)\n\t"
	"je 4b\n\t"
	"mov %rax, 0+general_out(%rip); mov %rbx, 8+general_out(%rip)\n\t"
	"mov %rcx, 16+general_out(%rip); mov %rdx, 24+general_out(%rip)\n\t"
	"mov %rsi, 32+general_out(%rip); mov %rdi, 40+general_out(%rip)\n\t"
	"mov %rbp, 48+general_out(%rip); mov %r8, 56+general_out(%rip)\n\t"
	"mov %r9, 64+general_out(%rip); mov %r10, 72+general_out(%rip)\n\t"
	"mov %r11, 80+general_out(%rip); mov %r12, 88+general_out(%rip)\n\t"
	"mov %r13, 96+general_out(%rip); mov %r14, 104+general_out(%rip)\n\t"
	"cmpl $1, level(%rip)\n\t"
	"je 5f\n\t"
	"jg 6f\n\t"
	".irp i," SIXTEEN "\n\t"
	"movdqu %xmm\\i, \\i*64+vector_out(%rip)\n\t"
	".endr\n\t"
	"jmp 7f\n"
	"5:\n\t"
	".irp i," SIXTEEN "\n\t"
	"vmovdqu %ymm\\i, \\i*64+vector_out(%rip)\n\t"
	".endr\n\t"
	"vzeroupper\n\t"
	"jmp 7f\n"
	"6:\n\t"
	".irp i," SIXTEEN ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"
	"vmovdqu64 %zmm\\i, \\i*64+vector_out(%rip)\n\t"
	".endr\n\t"
	".irp i,0,1,2,3,4,5,6,7\n\t"
	"kmovq %k\\i, \\i*8+mask_out(%rip)\n\t"
	".endr\n\t"
	"vzeroupper\n"
	"7:\n\t"
	"fstcw control_out(%rip)\n\t"
	"stmxcsr mxcsr_out(%rip)\n\t"
	".irp i,3,2,1,0\n\t"
	"fstpt \\i*16+float_out(%rip)\n\t"
	".endr\n\t"
	"fninit\n\t"
	"ldmxcsr mxcsr_default(%rip)\n\t"
	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n\t"
	"ret\n");

static void *spin(void *arg)
{
	spin_with_registers();
	return arg;
}

static void check_vectors(void)
{
	static const int count[] = { 16, 16, 32 }, width[] = { 16, 32, 64 };
	for (int i = 0; i < count[level]; i++) {
		char what[32];
		snprintf(what, sizeof(what), "%cmm%d", "xyz"[level], i);
		expect_bytes(what, vector_in + i * 64, vector_out + i * 64, (size_t)width[level]);
	}
	for (int i = 0; level == AVX512 && i < 8; i++)
		expect_hex("mask register", mask_in[i], mask_out[i]);
}

int main(void)
{
	level = __builtin_cpu_supports("avx512bw") ? AVX512
		: __builtin_cpu_supports("avx")	   ? AVX
						   : SSE;
	while (specimen_round()) {
		uint64_t seed = (uint64_t)specimen_number();
		pattern_fill(general_in, sizeof(general_in), seed);
		pattern_fill(vector_in, sizeof(vector_in), 10 + seed);
		pattern_fill(mask_in, sizeof(mask_in), 20 + seed);
		memset(vector_out, 0, sizeof(vector_out));
		memset(general_out, 0, sizeof(general_out));
		stop_spinning = spinning = 0;
		pthread_t thread;
		MUST_ZERO(pthread_create(&thread, NULL, spin, NULL));
		while (!spinning)
			sleep_ms(1);
		specimen_ready();
		stop_spinning = 1;
		MUST_ZERO(pthread_join(thread, NULL));
		static const char *const names[] = { "rax", "rbx", "rcx", "rdx", "rsi",
						     "rdi", "rbp", "r8",  "r9",	 "r10",
						     "r11", "r12", "r13", "r14" };
		for (int i = 0; i < 14; i++)
			expect_hex(names[i], general_in[i], general_out[i]);
		check_vectors();
		expect_hex("MXCSR", mxcsr_in, mxcsr_out);
		expect_hex("x87 control word", control_in, control_out);
		for (int i = 0; i < 4; i++)
			expect_bytes("x87 register", &float_in[i], &float_out[i], 10);
	}
	return specimen_end();
}
