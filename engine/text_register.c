/*
 * text_register.c - will a thread still look at a register from here on?
 *
 * Followed is the code of one function: at its end none of these registers holds anything of it (System V ABI, AMD64
 * supplement, 3.2.1: none is preserved, and who has a second result puts it into rdx). Nor does r10 in functions it
 * calls; the others may be arguments there, so that these are followed, too. Whatever is not understood counts as a
 * look.
 */
#include <capstone/capstone.h>
#include <stdbool.h>
#include <unistd.h>

#include "engine/text.h"

#define PATHS 16
#define INSTRUCTIONS 256 /* in all */
#define WINDOW 256	 /* bytes read at once */

struct walk {
	csh disassembler;
	int mem;
	enum text_register reg;
	uint64_t paths[PATHS]; /* where they begin; they are walked one after the other */
	unsigned n_paths, instructions;
};

enum step { STEP_ON, STEP_END, STEP_LOOKS };

static enum step add_path(struct walk *walk, uint64_t address)
{
	for (unsigned i = 0; i < walk->n_paths; i++)
		if (walk->paths[i] == address)
			return STEP_ON;
	if (walk->n_paths == PATHS)
		return STEP_LOOKS;
	walk->paths[walk->n_paths++] = address;
	return STEP_ON;
}

enum { PARTS = 5 };

/* A register and what parts of it are called; the first two are all of it, once written. */
static const unsigned parts_of[][PARTS] = {
	[TEXT_R10] = { X86_REG_R10, X86_REG_R10D, X86_REG_R10W, X86_REG_R10B, X86_REG_R10B },
	[TEXT_RDX] = { X86_REG_RDX, X86_REG_EDX, X86_REG_DX, X86_REG_DL, X86_REG_DH },
	[TEXT_R8] = { X86_REG_R8, X86_REG_R8D, X86_REG_R8W, X86_REG_R8B, X86_REG_R8B },
};

static bool is_part(const struct walk *walk, unsigned reg)
{
	for (unsigned i = 0; i < PARTS; i++)
		if (parts_of[walk->reg][i] == reg)
			return true;
	return false;
}

static bool is_all(const struct walk *walk, unsigned reg)
{
	return parts_of[walk->reg][0] == reg || parts_of[walk->reg][1] == reg;
}

static enum step look_at_registers(struct walk *walk, const cs_insn *insn)
{
	cs_regs read, written;
	uint8_t n_read, n_written;
	if (cs_regs_access(walk->disassembler, insn, read, &n_read, written, &n_written) != CS_ERR_OK)
		return STEP_LOOKS;
	for (uint8_t i = 0; i < n_read; i++)
		if (is_part(walk, read[i]))
			return STEP_LOOKS;
	for (uint8_t i = 0; i < n_written; i++)
		if (is_part(walk, written[i])) /* writing a part of it keeps the rest */
			return is_all(walk, written[i]) ? STEP_END : STEP_LOOKS;
	return STEP_ON;
}

/* Where it goes, if that is known. What is behind it finds another value. */
static enum step look_at_call(struct walk *walk, uint64_t target)
{
	if (walk->reg == TEXT_R10)
		return STEP_END;
	return target && add_path(walk, target) == STEP_ON ? STEP_END : STEP_LOOKS;
}

static enum step one_step(struct walk *walk, const cs_insn *insn, uint64_t *next)
{
	enum step step = look_at_registers(walk, insn);
	const cs_x86_op *target = insn->detail->x86.op_count ? &insn->detail->x86.operands[0] : NULL;
	bool direct = target && target->type == X86_OP_IMM;
	if (step != STEP_ON)
		return step;
	if (insn->id == X86_INS_SYSCALL || insn->id == X86_INS_INT3 || insn->id == X86_INS_INT)
		return STEP_LOOKS;
	if (cs_insn_group(walk->disassembler, insn, X86_GRP_RET))
		return STEP_END;
	if (cs_insn_group(walk->disassembler, insn, X86_GRP_CALL))
		return look_at_call(walk, direct ? (uint64_t)target->imm : 0);
	if (!cs_insn_group(walk->disassembler, insn, X86_GRP_JUMP))
		return STEP_ON;
	if (!direct)
		return STEP_LOOKS;
	if (insn->id != X86_INS_JMP)
		return add_path(walk, (uint64_t)target->imm);
	*next = (uint64_t)target->imm;
	return STEP_ON;
}

static enum step walk_path(struct walk *walk, uint64_t address)
{
	while (walk->instructions < INSTRUCTIONS) {
		uint8_t code[WINDOW];
		const uint8_t *at = code;
		ssize_t got = pread(walk->mem, code, sizeof(code), (off_t)address);
		size_t left = got > 0 ? (size_t)got : 0;
		uint64_t begin = address;
		cs_insn *insn = cs_malloc(walk->disassembler);
		enum step step = STEP_ON;
		while (insn && step == STEP_ON && walk->instructions < INSTRUCTIONS &&
		       cs_disasm_iter(walk->disassembler, &at, &left, &address, insn)) {
			uint64_t next = address;
			walk->instructions++;
			step = one_step(walk, insn, &next);
			if (next == address)
				continue;
			address = next;
			break;
		}
		cs_free(insn, insn ? 1 : 0);
		if (step != STEP_ON)
			return step;
		if (address == begin)
			return STEP_LOOKS; /* no instruction */
	}
	return STEP_LOOKS;
}

bool text_forgets(struct text_cache *cache, int mem, uint64_t address, enum text_register reg)
{
	struct walk walk = { .mem = mem, .reg = reg, .paths = { address }, .n_paths = 1 };
	if (!cache->detailed && (cs_open(CS_ARCH_X86, CS_MODE_64, &cache->detailed) != CS_ERR_OK ||
				 cs_option(cache->detailed, CS_OPT_DETAIL, CS_OPT_ON) != CS_ERR_OK))
		return false;
	walk.disassembler = cache->detailed;
	for (unsigned i = 0; i < walk.n_paths; i++)
		if (walk_path(&walk, walk.paths[i]) == STEP_LOOKS)
			return false;
	return true;
}
