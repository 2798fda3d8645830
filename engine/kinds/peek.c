/*
 * A BPF program of eleven instructions copies kernel memory into an array that is
 * mapped here; where things lie is read from /sys/kernel/btf/vmlinux.
 */
#include "engine/kinds/peek.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store/scope.h"

#define WINDOW 65536 /* bytes that are copied at a time */

struct peek {
	int window_map, program;
	void *window;
	char *btf;	      /* all of it */
	const char *strings;
	const struct btf_type **types; /* by type id */
	uint32_t n_types;
	uint64_t file_offset[6];
};

enum { TASK_FILES, FILES_FDT, FDT_FD, FILE_PRIVATE, FILE_INODE };

/* --- the program ------------------------------------------------------------------ */

struct request { /* the program's context */
	uint64_t address;
	uint64_t size;
	uint64_t task; /* filled: our own task_struct */
};

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int load_program(int map)
{
	const struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 6, .src_reg = 1},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_get_current_task},
		{.code = BPF_STX | BPF_MEM | BPF_DW, .dst_reg = 6, .off = offsetof(struct request, task)},
		/* NOLINTNEXTLINE(misc-redundant-expression): names for bits that happen to be zero */
		{.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_VALUE, .imm = map},
		{0}, /* the second half of the address */
		{.code = BPF_LDX | BPF_MEM | BPF_DW, .dst_reg = 2, .src_reg = 6,
		 .off = offsetof(struct request, size)},
		{.code = BPF_JMP | BPF_JGT | BPF_K, .dst_reg = 2, .imm = WINDOW, .off = 3},
		{.code = BPF_LDX | BPF_MEM | BPF_DW, .dst_reg = 3, .src_reg = 6,
		 .off = offsetof(struct request, address)},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_probe_read_kernel},
		{.code = BPF_JMP | BPF_EXIT},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SYSCALL,
			       .prog_flags = BPF_F_SLEEPABLE,
			       .insns = (uintptr_t)code,
			       .insn_cnt = sizeof(code) / sizeof(*code),
			       .license = (uintptr_t)"GPL"}; /* the helpers ask for that word */
	return bpf(BPF_PROG_LOAD, &attr);
}

static bool make_window(struct peek *peek)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = WINDOW,
			       .max_entries = 1, .map_flags = BPF_F_MMAPABLE};
	peek->window_map = bpf(BPF_MAP_CREATE, &attr);
	if (peek->window_map < 0)
		return false;
	peek->window = mmap(NULL, WINDOW, PROT_READ, MAP_SHARED, peek->window_map, 0);
	return peek->window != MAP_FAILED && (peek->program = load_program(peek->window_map)) >= 0;
}

static bool run(struct peek *peek, struct request *request)
{
	union bpf_attr attr = {.test = {.prog_fd = (uint32_t)peek->program,
					.ctx_in = (uintptr_t)request,
					.ctx_size_in = sizeof(*request)}};
	return bpf(BPF_PROG_TEST_RUN, &attr) == 0 && attr.test.retval == 0;
}

bool peek_bytes(struct peek *peek, uint64_t address, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		struct request request = {.address = address + done,
					  .size = size - done < WINDOW ? size - done : WINDOW};
		if (address < 1ull << 63 || !run(peek, &request)) /* the kernel's half */
			return false;
		memcpy((char *)to + done, peek->window, request.size);
		done += request.size;
	}
	return true;
}

uint64_t peek_word(struct peek *peek, uint64_t address, uint64_t offset)
{
	uint64_t word = 0;
	return peek_bytes(peek, address + offset, &word, sizeof(word)) ? word : 0;
}

uint32_t peek_half(struct peek *peek, uint64_t address, uint64_t offset)
{
	uint32_t half = 0;
	return peek_bytes(peek, address + offset, &half, sizeof(half)) ? half : 0;
}

/* --- where things lie --------------------------------------------------------------- */

/* Bytes behind a type's head: Documentation/bpf/btf.rst. -1: a kind that came later. */
static long extra_bytes(const struct btf_type *type)
{
	long n = BTF_INFO_VLEN(type->info);
	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
	case BTF_KIND_DATASEC:
	case 19: /* BTF_KIND_ENUM64, Linux 6.0 */
		return n * 12;
	case BTF_KIND_ENUM:
	case BTF_KIND_FUNC_PROTO:
		return n * 8;
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case BTF_KIND_TYPE_TAG:
		return 0;
	}
	return -1;
}

static bool index_types(struct peek *peek, size_t size)
{
	const struct btf_header *head = (const struct btf_header *)peek->btf;
	if (size < sizeof(*head) || head->magic != BTF_MAGIC ||
	    (uint64_t)head->hdr_len + head->str_off + head->str_len > size ||
	    (uint64_t)head->hdr_len + head->type_off + head->type_len > size)
		return false;
	const char *at = peek->btf + head->hdr_len + head->type_off, *end = at + head->type_len;
	peek->strings = peek->btf + head->hdr_len + head->str_off;
	peek->types = calloc(head->type_len / sizeof(struct btf_type) + 2, sizeof(*peek->types));
	peek->n_types = 1; /* 0 is void */
	while (peek->types && at < end) {
		const struct btf_type *type = (const struct btf_type *)at;
		long extra = extra_bytes(type);
		if (extra < 0)
			return false;
		peek->types[peek->n_types++] = type;
		at += (long)sizeof(*type) + extra;
	}
	return peek->types;
}

static bool read_types(struct peek *peek)
{
	cleanup_fd int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC);
	struct stat stat;
	if (fd < 0 || fstat(fd, &stat) < 0 || !(peek->btf = malloc((size_t)stat.st_size)))
		return false;
	size_t size = 0;
	for (ssize_t got; size < (size_t)stat.st_size; size += (size_t)got)
		if ((got = read(fd, peek->btf + size, (size_t)stat.st_size - size)) <= 0)
			return false;
	return index_types(peek, size);
}

static const struct btf_type *strip(const struct peek *peek, uint32_t id)
{
	while (id && id < peek->n_types) {
		const struct btf_type *type = peek->types[id];
		switch (BTF_INFO_KIND(type->info)) {
		case BTF_KIND_TYPEDEF:
		case BTF_KIND_CONST:
		case BTF_KIND_VOLATILE:
		case BTF_KIND_RESTRICT:
		case BTF_KIND_TYPE_TAG:
			id = type->type;
			break;
		default:
			return type;
		}
	}
	return NULL;
}

static bool is_compound(const struct btf_type *type)
{
	return type && (BTF_INFO_KIND(type->info) == BTF_KIND_STRUCT ||
			BTF_INFO_KIND(type->info) == BTF_KIND_UNION);
}

/* Adds to *offset that of the member named by the first `length` characters; its type, or NULL. */
static const struct btf_type *find_member(const struct peek *peek, const struct btf_type *type,
					  const char *name, size_t length, uint64_t *offset)
{
	const struct btf_member *members = (const struct btf_member *)(type + 1);
	for (uint32_t i = 0; i < BTF_INFO_VLEN(type->info); i++) {
		const char *seen = peek->strings + members[i].name_off;
		const struct btf_type *inner = strip(peek, members[i].type);
		uint64_t here = BTF_INFO_KFLAG(type->info) ? BTF_MEMBER_BIT_OFFSET(members[i].offset) :
							     members[i].offset;
		uint64_t below = *offset + here / 8;
		if (!strncmp(seen, name, length) && !seen[length]) {
			*offset = below;
			return inner;
		}
		if (*seen || !is_compound(inner))
			continue;
		const struct btf_type *found = find_member(peek, inner, name, length, &below);
		if (!found)
			continue;
		*offset = below;
		return found;
	}
	return NULL;
}

static bool find_path(const struct peek *peek, const struct btf_type *type, struct peek_member *member)
{
	uint64_t offset = 0;
	for (const char *name = member->member; *name;) {
		size_t length = strcspn(name, ".");
		if (!is_compound(type) || !(type = find_member(peek, type, name, length, &offset)))
			return false;
		name += length + (name[length] == '.');
	}
	member->offset = offset;
	return true;
}

bool peek_layout(const struct peek *peek, struct peek_member *members, size_t n)
{
	size_t found = 0;
	uint64_t missing = ~0ull; /* by member: not found yet */
	for (uint32_t i = 1; i < peek->n_types && found < n; i++) {
		const struct btf_type *type = peek->types[i];
		if (BTF_INFO_KIND(type->info) != BTF_KIND_STRUCT || !type->name_off)
			continue;
		const char *name = peek->strings + type->name_off;
		for (size_t j = 0; j < n; j++) {
			if (!(missing & 1ull << j) || *name != *members[j].type ||
			    strcmp(name, members[j].type) || !find_path(peek, type, &members[j]))
				continue;
			missing &= ~(1ull << j);
			found++;
		}
	}
	return found == n;
}

/* --- descriptors ----------------------------------------------------------------------- */

uint64_t peek_file(struct peek *peek, int fd)
{
	struct request request = {0};
	run(peek, &request); /* nothing is copied, but the program says which task we are */
	uint64_t files = peek_word(peek, request.task, peek->file_offset[TASK_FILES]);
	uint64_t table = files ? peek_word(peek, files, peek->file_offset[FILES_FDT]) : 0;
	uint64_t array = table ? peek_word(peek, table, peek->file_offset[FDT_FD]) : 0;
	return array && fd >= 0 ? peek_word(peek, array, (uint64_t)fd * 8) : 0;
}

uint64_t peek_private(struct peek *peek, int fd)
{
	uint64_t file = peek_file(peek, fd);
	return file ? peek_word(peek, file, peek->file_offset[FILE_PRIVATE]) : 0;
}

uint64_t peek_inode(struct peek *peek, int fd)
{
	uint64_t file = peek_file(peek, fd);
	return file ? peek_word(peek, file, peek->file_offset[FILE_INODE]) : 0;
}

static bool look_around(struct peek *peek)
{
	struct peek_member members[] = {
		[TASK_FILES] = {"task_struct", "files", 0},    [FILES_FDT] = {"files_struct", "fdt", 0},
		[FDT_FD] = {"fdtable", "fd", 0},	       [FILE_PRIVATE] = {"file", "private_data", 0},
		[FILE_INODE] = {"file", "f_inode", 0},
	};
	if (!make_window(peek) || !read_types(peek) || !peek_layout(peek, members, 5))
		return false;
	for (size_t i = 0; i < 5; i++)
		peek->file_offset[i] = members[i].offset;
	/* Does it work? A descriptor of ours leads to a file. */
	return peek_file(peek, peek->window_map) != 0;
}

struct peek *peek_open(void)
{
	/* For tests: kernels that do not let us look. */
	struct peek *peek = getenv("FSNAP_NO_PEEK") ? NULL : calloc(1, sizeof(*peek));
	if (!peek)
		return NULL;
	*peek = (struct peek){.window_map = -1, .program = -1, .window = MAP_FAILED};
	if (look_around(peek))
		return peek;
	peek_close(peek);
	return NULL;
}

void peek_close(struct peek *peek)
{
	if (!peek)
		return;
	if (peek->window != MAP_FAILED)
		munmap(peek->window, WINDOW);
	if (peek->window_map >= 0)
		close(peek->window_map);
	if (peek->program >= 0)
		close(peek->program);
	free(peek->types);
	free(peek->btf);
	free(peek);
}
