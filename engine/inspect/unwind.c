/*
 * unwind.c - backtraces by libunwind, of which only the arithmetic is used: memory
 * and registers come from the view, unwind tables from the ELF files it finds.
 * The tables themselves are read through the memory they are mapped in.
 */
#include <libunwind.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/inspect/elf.h"
#include "engine/inspect/thread_view.h"

#define MAX_FRAMES 512

/* What libunwind calls its `arg`. */
struct place {
	struct process_view *process;
	const struct user_regs_struct *regs;
};

/* Exported by libunwind for callers with accessors of their own, declared nowhere. */
extern int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t space, unw_word_t ip,
					      unw_dyn_info_t *table, unw_proc_info_t *procedure,
					      int need_unwind_info, void *arg);

/* --- the unwind table ---------------------------------------------------------------- */

/* The start of .eh_frame_hdr, as the LSB lays it out, in the one form that is searchable. */
struct table_header {
	uint8_t version, frame_encoding, count_encoding, table_encoding;
	int32_t frame;
	uint32_t count;
};

#define ENCODING_COUNT 0x03 /* DW_EH_PE_udata4 */
#define ENCODING_TABLE 0x3b /* DW_EH_PE_datarel | DW_EH_PE_sdata4 */
#define ENTRY_SIZE 8u

static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t *procedure,
			  int need_unwind_info, void *arg)
{
	struct place *place = arg;
	const image_vma *vma = view_vma(place->process, ip);
	struct table_header header;
	uint64_t bias;
	struct elf *elf = vma ? view_elf(place->process, vma, &bias) : NULL;
	uint64_t table = elf ? elf_unwind_table(elf) : 0;

	if (!table ||
	    view_read(place->process, table + bias, &header, sizeof(header)) != sizeof(header) ||
	    header.version != 1 || header.count_encoding != ENCODING_COUNT ||
	    header.table_encoding != ENCODING_TABLE)
		return -UNW_ENOINFO;
	unw_dyn_info_t info = {
		.start_ip = vma->start,
		.end_ip = vma->end,
		.format = UNW_INFO_FORMAT_REMOTE_TABLE,
		.u.rti = {
			.segbase = table + bias,
			.table_data = table + bias + sizeof(header),
			.table_len = (uint64_t)header.count * ENTRY_SIZE / sizeof(unw_word_t),
		},
	};
	return UNW_OBJ(dwarf_search_unwind_table)(space, ip, &info, procedure, need_unwind_info,
						  arg);
}

static void put_unwind_info(unw_addr_space_t space, unw_proc_info_t *procedure, void *arg)
{
	(void)space, (void)procedure, (void)arg; /* libunwind frees its own */
}

static int no_dynamic_code(unw_addr_space_t space, unw_word_t *list, void *arg)
{
	(void)space, (void)list, (void)arg;
	return -UNW_ENOINFO;
}

/* --- memory and registers ------------------------------------------------------------- */

static int access_memory(unw_addr_space_t space, unw_word_t address, unw_word_t *value, int write,
			 void *arg)
{
	struct place *place = arg;

	(void)space;
	if (write || view_read(place->process, address, value, sizeof(*value)) != sizeof(*value))
		return -UNW_EINVAL;
	return 0;
}

static int access_register(unw_addr_space_t space, unw_regnum_t number, unw_word_t *value,
			   int write, void *arg)
{
	const struct user_regs_struct *regs = ((struct place *)arg)->regs;
	const unsigned long long values[] = {
		[UNW_X86_64_RAX] = regs->rax, [UNW_X86_64_RDX] = regs->rdx,
		[UNW_X86_64_RCX] = regs->rcx, [UNW_X86_64_RBX] = regs->rbx,
		[UNW_X86_64_RSI] = regs->rsi, [UNW_X86_64_RDI] = regs->rdi,
		[UNW_X86_64_RBP] = regs->rbp, [UNW_X86_64_RSP] = regs->rsp,
		[UNW_X86_64_R8] = regs->r8,   [UNW_X86_64_R9] = regs->r9,
		[UNW_X86_64_R10] = regs->r10, [UNW_X86_64_R11] = regs->r11,
		[UNW_X86_64_R12] = regs->r12, [UNW_X86_64_R13] = regs->r13,
		[UNW_X86_64_R14] = regs->r14, [UNW_X86_64_R15] = regs->r15,
		[UNW_X86_64_RIP] = regs->rip,
	};

	(void)space;
	if (write || number < 0 || (size_t)number >= sizeof(values) / sizeof(values[0]))
		return -UNW_EBADREG;
	*value = values[number];
	return 0;
}

static int no_float_register(unw_addr_space_t space, unw_regnum_t number, unw_fpreg_t *value,
			     int write, void *arg)
{
	(void)space, (void)number, (void)value, (void)write, (void)arg;
	return -UNW_EBADREG; /* none is needed to find a caller */
}

static int no_resume(unw_addr_space_t space, unw_cursor_t *cursor, void *arg)
{
	(void)space, (void)cursor, (void)arg;
	return -UNW_EINVAL;
}

static int no_name(unw_addr_space_t space, unw_word_t address, char *name, size_t size,
		   unw_word_t *offset, void *arg)
{
	(void)space, (void)address, (void)name, (void)size, (void)offset, (void)arg;
	return -UNW_ENOINFO; /* see thread_view.c */
}

static unw_accessors_t accessors = {
	.find_proc_info = find_proc_info,
	.put_unwind_info = put_unwind_info,
	.get_dyn_info_list_addr = no_dynamic_code,
	.access_mem = access_memory,
	.access_reg = access_register,
	.access_fpreg = no_float_register,
	.resume = no_resume,
	.get_proc_name = no_name,
};

/* --- frames ---------------------------------------------------------------------------- */

/* Without unwind information libunwind guesses along %rbp: only what leads to code is believed. */
static bool is_code(const struct process_view *process, uint64_t address)
{
	const image_vma *vma = view_vma(process, address);

	return vma && (vma->prot & PROT_EXEC);
}

static int walk(struct thread_view *thread, unw_cursor_t *cursor, struct fsnap_error *err)
{
	unw_word_t address, stack, last_address = 0, last_stack = 0;

	do {
		if (unw_get_reg(cursor, UNW_REG_IP, &address) ||
		    unw_get_reg(cursor, UNW_REG_SP, &stack) ||
		    !is_code(thread->process, address) ||
		    (address == last_address && stack == last_stack))
			break;
		struct frame *frame = VIEW_ADD(thread->frames, thread->n_frames, err);
		if (!frame)
			return -1;
		frame->address = address;
		frame->interrupted = unw_is_signal_frame(cursor) > 0;
		last_address = address;
		last_stack = stack;
	} while (thread->n_frames < MAX_FRAMES && unw_step(cursor) > 0);
	return 0;
}

int unwind(struct thread_view *thread, struct fsnap_error *err)
{
	struct place place = { thread->process, view_regs(thread->thread) };
	unw_addr_space_t space = unw_create_addr_space(&accessors, 0);
	unw_cursor_t cursor;
	int result = 0;

	if (!space)
		return fail(err, FSNAP_E_NOMEM, 0, "no memory for a backtrace");
	if (!unw_init_remote(&cursor, space, &place))
		result = walk(thread, &cursor, err);
	unw_destroy_addr_space(space);
	return result;
}
