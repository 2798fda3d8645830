#include "engine/inspect/elf.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "store/scope.h"

/* More than any real file has; keeps a damaged one from asking for all memory. */
#define MAX_HEADERS 4096u
#define MAX_TABLE (512u << 20)

struct symbol {
	uint64_t address;
	uint64_t size;
	const char *name;
};

struct symbols { /* of one table, by address */
	struct symbol *symbols;
	size_t count;
	char *names;
};

struct elf {
	elf_read_fn read;
	void *arg;
	Elf64_Ehdr header;
	Elf64_Phdr *segments; /* header.e_phnum of them */
	bool symbols_tried;
	struct symbols tables[2]; /* SHT_SYMTAB, SHT_DYNSYM */
};

/* malloc'ed; NULL if it is not all there. One byte more than asked, zero: strings end. */
static void *read_part(const struct elf *elf, uint64_t offset, uint64_t size)
{
	if (!size || size > MAX_TABLE)
		return NULL;
	char *part = malloc(size + 1);
	if (part && elf->read(elf->arg, offset, part, size) != size) {
		free(part);
		return NULL;
	}
	if (part)
		part[size] = '\0';
	return part;
}

struct elf *elf_open(elf_read_fn read, void *arg)
{
	struct elf *elf = calloc(1, sizeof(*elf));

	if (!elf)
		return NULL;
	elf->read = read;
	elf->arg = arg;
	const Elf64_Ehdr *header = &elf->header;
	if (read(arg, 0, &elf->header, sizeof(*header)) == sizeof(*header) &&
	    !memcmp(header->e_ident, ELFMAG, SELFMAG) &&
	    header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_machine == EM_X86_64 &&
	    header->e_phentsize == sizeof(Elf64_Phdr) && header->e_phnum < MAX_HEADERS)
		elf->segments = read_part(elf, header->e_phoff,
					  header->e_phnum * sizeof(Elf64_Phdr));
	if (elf->segments)
		return elf;
	free(elf);
	return NULL;
}

void elf_close(struct elf *elf)
{
	if (!elf)
		return;
	for (int i = 0; i < 2; i++) {
		free(elf->tables[i].symbols);
		free(elf->tables[i].names);
	}
	free(elf->segments);
	free(elf);
}

bool elf_address(const struct elf *elf, uint64_t offset, uint64_t *address)
{
	for (int i = 0; i < elf->header.e_phnum; i++) {
		const Elf64_Phdr *segment = &elf->segments[i];
		/* Whole pages are mapped, whatever the segment covers of them. */
		uint64_t first = segment->p_offset & ~(uint64_t)4095;

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X) || offset < first ||
		    offset - first >= segment->p_offset - first + segment->p_filesz)
			continue;
		*address = offset - segment->p_offset + segment->p_vaddr;
		return true;
	}
	return false;
}

uint64_t elf_unwind_table(const struct elf *elf)
{
	for (int i = 0; i < elf->header.e_phnum; i++)
		if (elf->segments[i].p_type == PT_GNU_EH_FRAME)
			return elf->segments[i].p_vaddr;
	return 0;
}

/* --- symbols -------------------------------------------------------------------- */

static size_t leading_underscores(const char *name)
{
	return strspn(name, "_");
}

/* Of several names for one address the plainest comes last, where the search ends up. */
static int by_address(const void *left, const void *right)
{
	const struct symbol *a = left, *b = right;

	if (a->address != b->address)
		return a->address < b->address ? -1 : 1;
	size_t under_a = leading_underscores(a->name), under_b = leading_underscores(b->name);
	if (under_a != under_b)
		return under_a > under_b ? -1 : 1;
	return strcmp(b->name, a->name);
}

static bool is_function(const Elf64_Sym *symbol, size_t names)
{
	unsigned type = ELF64_ST_TYPE(symbol->st_info);

	return (type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE) &&
	       symbol->st_shndx != SHN_UNDEF && symbol->st_value && symbol->st_name &&
	       symbol->st_name < names;
}

static void load_table(struct elf *elf, const Elf64_Shdr *sections, const Elf64_Shdr *table,
		       struct symbols *to)
{
	if (table->sh_link >= elf->header.e_shnum)
		return;
	const Elf64_Shdr *strings = &sections[table->sh_link];
	cleanup_free Elf64_Sym *all = read_part(elf, table->sh_offset, table->sh_size);
	size_t count = table->sh_size / sizeof(*all);

	to->names = read_part(elf, strings->sh_offset, strings->sh_size);
	to->symbols = malloc(count * sizeof(*to->symbols));
	if (!all || !to->names || !to->symbols)
		return;
	for (size_t i = 0; i < count; i++)
		if (is_function(&all[i], strings->sh_size))
			to->symbols[to->count++] = (struct symbol){
				all[i].st_value, all[i].st_size, to->names + all[i].st_name
			};
	qsort(to->symbols, to->count, sizeof(*to->symbols), by_address);
}

static void load_symbols(struct elf *elf)
{
	const Elf64_Ehdr *header = &elf->header;

	elf->symbols_tried = true;
	if (header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shnum >= MAX_HEADERS)
		return;
	cleanup_free Elf64_Shdr *sections =
		read_part(elf, header->e_shoff, header->e_shnum * sizeof(Elf64_Shdr));
	for (int i = 0; sections && i < header->e_shnum; i++) {
		int table = sections[i].sh_type == SHT_SYMTAB ? 0 : 1;

		if ((sections[i].sh_type == SHT_SYMTAB || sections[i].sh_type == SHT_DYNSYM) &&
		    !elf->tables[table].names && !elf->tables[table].symbols)
			load_table(elf, sections, &sections[i], &elf->tables[table]);
	}
}

/* Labels written in assembly have no size: they reach to the next symbol. */
static const struct symbol *find_symbol(const struct symbols *table, uint64_t address)
{
	size_t low = 0, high = table->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (table->symbols[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return NULL;
	const struct symbol *symbol = &table->symbols[low - 1];
	return !symbol->size || address - symbol->address < symbol->size ? symbol : NULL;
}

const char *elf_symbol(struct elf *elf, uint64_t address, uint64_t *into)
{
	if (!elf->symbols_tried)
		load_symbols(elf);
	for (int i = 0; i < 2; i++) {
		const struct symbol *symbol = find_symbol(&elf->tables[i], address);
		if (!symbol)
			continue;
		*into = address - symbol->address;
		return symbol->name;
	}
	return NULL;
}
