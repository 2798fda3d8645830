#include "restorer/vdso.h"

#include <capstone/capstone.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "store/scope.h"

#define JUMP 5 /* e9 and a displacement of 32 bits */

#ifndef SYS_getrandom
#define SYS_getrandom 318
#endif

/* --- symbols ------------------------------------------------------------------------- */

/* An ELF file in memory, as much of it as is asked for here; nothing in it is believed. */
struct elf_file {
	const uint8_t *bytes;
	size_t size;
	const Elf64_Shdr *sections;
	size_t n_sections;
	const Elf64_Sym *symbols;
	size_t n_symbols;
	const char *names;
	size_t n_names; /* bytes, the last of them NUL */
};

static const void *part(const struct elf_file *file, uint64_t offset, uint64_t n)
{
	return offset <= file->size && n <= file->size - offset && offset % 8 == 0 ? file->bytes + offset : NULL;
}

/* The vDSO has its section headers in its pages, and one segment, loaded as it stands in the file. */
static bool elf_parse(struct elf_file *file, const void *bytes, size_t size)
{
	*file = (struct elf_file){ .bytes = bytes, .size = size };
	const Elf64_Ehdr *header = part(file, 0, sizeof(*header));
	if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_machine != EM_X86_64 ||
	    header->e_shentsize != sizeof(Elf64_Shdr))
		return false;
	file->n_sections = header->e_shnum;
	file->sections = part(file, header->e_shoff, header->e_shnum * sizeof(Elf64_Shdr));
	for (size_t i = 0; file->sections && i < file->n_sections; i++) {
		const Elf64_Shdr *section = &file->sections[i];
		if (section->sh_type != SHT_DYNSYM || section->sh_link >= file->n_sections)
			continue;
		const Elf64_Shdr *names = &file->sections[section->sh_link];
		file->n_symbols = section->sh_size / sizeof(Elf64_Sym);
		file->symbols = part(file, section->sh_offset, section->sh_size);
		if (names->sh_offset <= size && names->sh_size <= size - names->sh_offset && names->sh_size &&
		    file->bytes[names->sh_offset + names->sh_size - 1] == '\0') {
			file->names = (const char *)file->bytes + names->sh_offset;
			file->n_names = names->sh_size;
		}
	}
	return file->symbols && file->names;
}

static bool is_function(const struct elf_file *file, const Elf64_Sym *symbol)
{
	return ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && symbol->st_shndx != SHN_UNDEF &&
	       symbol->st_value < file->size && symbol->st_name < file->n_names;
}

/* clock_gettime and __vdso_clock_gettime are one function. */
static const char *plain(const char *name)
{
	static const char prefix[] = "__vdso_";
	return strncmp(name, prefix, sizeof(prefix) - 1) == 0 ? name + sizeof(prefix) - 1 : name;
}

static bool find_function(const struct elf_file *file, const char *name, uint64_t *offset)
{
	for (size_t i = 0; i < file->n_symbols; i++) {
		const Elf64_Sym *symbol = &file->symbols[i];
		if (!is_function(file, symbol) || strcmp(plain(file->names + symbol->st_name), plain(name)) != 0)
			continue;
		*offset = symbol->st_value;
		return true;
	}
	return false;
}

/* --- functions this kernel does not have ------------------------------------------------ */

static void stub_bytes(struct vdso_entry *entry, const void *bytes, size_t n)
{
	memcpy(entry->stub + entry->n_stub, bytes, n);
	entry->n_stub += n;
}

/* mov $nr, %eax; syscall; ret: arguments are where the kernel wants them, but for the fourth, and no function
 * has one that its system call has, too. */
static void stub_call(struct vdso_entry *entry, uint32_t nr)
{
	stub_bytes(entry, "\xb8", 1);
	stub_bytes(entry, &nr, sizeof(nr));
	stub_bytes(entry, "\x0f\x05\xc3", 3);
}

/* getrandom(buffer, n, flags, state, state_size): with a size of -1 it is asked about the state, and answers
 * -ENOSYS; else the state goes unused. cmp $-1, %r8; jne past the two: mov $-38, %eax; ret */
static void stub_getrandom(struct vdso_entry *entry)
{
	stub_bytes(entry, "\x49\x83\xf8\xff\x75\x08\x48\xc7\xc0\xda\xff\xff\xff\xc3", 14);
	stub_call(entry, SYS_getrandom);
}

/* What else there is (sgx_enter_enclave) reads no data of the kernel: the old code will do. */
static void make_stub(struct vdso_entry *entry)
{
	static const struct {
		const char *name;
		uint32_t nr;
	} calls[] = {
		{ "clock_gettime", SYS_clock_gettime }, { "gettimeofday", SYS_gettimeofday },
		{ "time", SYS_time },			{ "clock_getres", SYS_clock_getres },
		{ "getcpu", SYS_getcpu },
	};
	const char *name = plain(entry->name);
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (strcmp(name, calls[i].name) == 0)
			stub_call(entry, calls[i].nr);
	if (strcmp(name, "getrandom") == 0)
		stub_getrandom(entry);
}

/* Bytes at the entry that change. */
static size_t patch_size(const struct vdso_entry *entry)
{
	return entry->found ? JUMP : entry->n_stub;
}

static int list_entries(struct vdso_redirection *out, const struct elf_file *old, const struct elf_file *now,
			struct fsnap_error *err)
{
	for (size_t i = 0; i < old->n_symbols; i++) {
		const Elf64_Sym *symbol = &old->symbols[i];
		bool known = !is_function(old, symbol);
		for (size_t j = 0; j < out->n_entries; j++)
			known |= out->entries[j].old == symbol->st_value;
		if (known)
			continue;
		if (out->n_entries == VDSO_ENTRIES)
			return fail(err, FSNAP_E_KERNEL_LACKS, 0, "the image's vDSO has too many functions");
		struct vdso_entry *entry = &out->entries[out->n_entries++];
		entry->name = old->names + symbol->st_name;
		entry->old = symbol->st_value;
		entry->found = now->symbols && find_function(now, entry->name, &entry->now);
		if (!entry->found)
			make_stub(entry);
	}
	return 0;
}

/* --- may these bytes change? --------------------------------------------------------------- */

static int cannot(const struct vdso_entry *entry, const char *why, struct fsnap_error *err)
{
	fail(err, FSNAP_E_KERNEL_LACKS, 0, "the image's vDSO cannot be led to this kernel's: %s: %s", entry->name,
	     why);
	return error_hint(err, "restore on the kernel build that dumped it");
}

static bool strictly_inside(const struct vdso_entry *entry, uint64_t offset)
{
	return offset > entry->old && offset < entry->old + patch_size(entry);
}

static bool changes(const struct vdso_redirection *redirection, uint64_t offset)
{
	for (size_t i = 0; i < redirection->n_entries; i++)
		if (offset == redirection->entries[i].old || strictly_inside(&redirection->entries[i], offset))
			return patch_size(&redirection->entries[i]) > 0;
	return false;
}

/* Where an instruction may go on besides the next one: a known place, no place, or one that only it knows. */
enum target { NOWHERE, PLACE, UNKNOWN };

static enum target target_of(csh disassembler, const cs_insn *instruction, uint64_t *place)
{
	bool call = cs_insn_group(disassembler, instruction, CS_GRP_CALL);
	if (!call && !cs_insn_group(disassembler, instruction, CS_GRP_JUMP))
		return NOWHERE;
	const cs_x86_op *operand = &instruction->detail->x86.operands[0];
	if (instruction->detail->x86.op_count != 1 || operand->type != X86_OP_IMM)
		return call ? NOWHERE : UNKNOWN; /* functions begin elsewhere: at symbols, or outside */
	*place = (uint64_t)operand->imm;
	return PLACE;
}

/* One section of code: marks which entries begin instructions of it. */
static int check_section(const struct vdso_redirection *redirection, csh disassembler,
			 const Elf64_Shdr *section, bool *begins, struct fsnap_error *err)
{
	const uint8_t *code = redirection->old + section->sh_offset;
	size_t left = section->sh_size;
	uint64_t address = section->sh_addr, place = 0;
	cs_insn *instruction = cs_malloc(disassembler);
	int result = instruction ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "the disassembler");
	while (result == 0 && cs_disasm_iter(disassembler, &code, &left, &address, instruction)) {
		bool gone = changes(redirection, instruction->address);
		enum target target = instruction->id == 0 ? NOWHERE :
							    target_of(disassembler, instruction, &place);
		for (size_t i = 0; i < redirection->n_entries && result == 0; i++) {
			const struct vdso_entry *entry = &redirection->entries[i];
			begins[i] |= instruction->address == entry->old && instruction->id != 0;
			if (gone || patch_size(entry) == 0)
				continue;
			if (target == UNKNOWN)
				result = cannot(entry, "where its code jumps to is not known", err);
			else if (target == PLACE && strictly_inside(entry, place))
				result = cannot(entry, "something jumps behind its beginning", err);
		}
	}
	if (instruction)
		cs_free(instruction, 1);
	return result;
}

static int check_room(const struct vdso_redirection *redirection, const struct elf_file *old,
		      const struct vdso_entry *entry, struct fsnap_error *err)
{
	uint64_t end = old->size;
	for (size_t i = 0; i < redirection->n_entries; i++)
		if (redirection->entries[i].old > entry->old && redirection->entries[i].old < end)
			end = redirection->entries[i].old;
	for (size_t i = 0; i < old->n_symbols; i++) {
		const Elf64_Sym *symbol = &old->symbols[i];
		if (is_function(old, symbol) && symbol->st_value == entry->old && symbol->st_size &&
		    symbol->st_size < end - entry->old)
			end = entry->old + symbol->st_size;
	}
	return end - entry->old >= patch_size(entry) ? 0 : cannot(entry, "the function is too short", err);
}

static int check_code(const struct vdso_redirection *redirection, const struct elf_file *old,
		      struct fsnap_error *err)
{
	bool begins[VDSO_ENTRIES] = { 0 };
	csh disassembler;
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &disassembler) != CS_ERR_OK)
		return fail(err, FSNAP_E_NOMEM, 0, "the disassembler");
	cs_option(disassembler, CS_OPT_DETAIL, CS_OPT_ON);
	cs_option(disassembler, CS_OPT_SKIPDATA, CS_OPT_ON); /* padding */
	int result = 0;
	for (size_t i = 0; i < old->n_sections && result == 0; i++) {
		const Elf64_Shdr *section = &old->sections[i];
		if (section->sh_type == SHT_PROGBITS && section->sh_flags & SHF_EXECINSTR &&
		    section->sh_addr == section->sh_offset && section->sh_offset <= old->size &&
		    section->sh_size <= old->size - section->sh_offset)
			result = check_section(redirection, disassembler, section, begins, err);
	}
	cs_close(&disassembler);
	for (size_t i = 0; i < redirection->n_entries && result == 0; i++) {
		const struct vdso_entry *entry = &redirection->entries[i];
		if (patch_size(entry) == 0)
			continue;
		result = begins[i] ? check_room(redirection, old, entry, err) :
				     cannot(entry, "no instruction begins there", err);
	}
	return result;
}

int vdso_redirect(struct vdso_redirection *out, const void *old, size_t old_size, const void *now,
		  size_t now_size, struct fsnap_error *err)
{
	struct elf_file was, is = { 0 };
	*out = (struct vdso_redirection){ .old = old, .size = old_size };
	if (!elf_parse(&was, old, old_size)) {
		fail(err, FSNAP_E_KERNEL_LACKS, 0, "the image's vDSO is none, and this kernel is another build");
		return error_hint(err, "restore on the kernel build that dumped it");
	}
	if (now && !elf_parse(&is, now, now_size))
		is = (struct elf_file){ 0 };
	return list_entries(out, &was, &is, err) < 0 ? -1 : check_code(out, &was, err);
}

void vdso_patch(const struct vdso_redirection *redirection, uint64_t old_base, uint64_t now_base, uint8_t *to)
{
	memcpy(to, redirection->old, redirection->size);
	for (size_t i = 0; i < redirection->n_entries; i++) {
		const struct vdso_entry *entry = &redirection->entries[i];
		uint8_t *at = to + entry->old;
		if (!entry->found) {
			memcpy(at, entry->stub, entry->n_stub);
			continue;
		}
		uint32_t distance = (uint32_t)(now_base + entry->now - (old_base + entry->old + JUMP));
		at[0] = 0xe9;
		memcpy(at + 1, &distance, sizeof(distance));
	}
}
