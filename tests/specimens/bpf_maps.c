/*
 * BPF maps: attributes and content of hashes, arrays, tries and maps with a value per processor; one
 * that was frozen; two open files of one map, one of which may only read; and a program that is pinned.
 *
 * harness: root
 */
#include "specimen.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { PER_CPU_ROOM = 4096 };

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int make(unsigned type, unsigned key, unsigned value, unsigned entries, unsigned flags, const char *name)
{
	union bpf_attr attr = { .map_type = type, .key_size = key, .value_size = value, .max_entries = entries,
				.map_flags = flags };
	strcpy(attr.map_name, name);
	return bpf(BPF_MAP_CREATE, &attr);
}

static int set(int map, const void *key, const void *value)
{
	union bpf_attr attr = { .map_fd = (unsigned)map, .key = (uintptr_t)key, .value = (uintptr_t)value };
	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static int get(int map, const void *key, void *value)
{
	union bpf_attr attr = { .map_fd = (unsigned)map, .key = (uintptr_t)key, .value = (uintptr_t)value };
	return bpf(BPF_MAP_LOOKUP_ELEM, &attr);
}

static struct bpf_map_info info_of(int fd)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr attr = { .info = { .bpf_fd = (unsigned)fd, .info_len = sizeof(info),
					  .info = (uintptr_t)&info } };
	expect_ok("info", bpf(BPF_OBJ_GET_INFO_BY_FD, &attr));
	return info;
}

static int load(void)
{
	const struct bpf_insn code[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 77 },
					 { .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uintptr_t)code, .insn_cnt = 2,
				.license = (uintptr_t)"GPL" };
	return bpf(BPF_PROG_LOAD, &attr);
}

static void check_program(int program)
{
	struct bpf_prog_info info = { 0 };
	union bpf_attr attr = { .info = { .bpf_fd = (unsigned)program, .info_len = sizeof(info),
					  .info = (uintptr_t)&info } };
	char packet[64] = "";
	expect_ok("the pinned program", bpf(BPF_OBJ_GET_INFO_BY_FD, &attr));
	expect_int("its type", BPF_PROG_TYPE_SOCKET_FILTER, info.type);
	union bpf_attr run = { .test = { .prog_fd = (unsigned)program, .data_in = (uintptr_t)packet,
					 .data_size_in = sizeof(packet) } };
	expect_ok("runs", bpf(BPF_PROG_TEST_RUN, &run));
	expect_int("and says", 77, run.test.retval);
}

int main(void)
{
	int hash = make(BPF_MAP_TYPE_HASH, 8, 12, 100, BPF_F_NO_PREALLOC, "a_hash");
	if (hash < 0)
		specimen_skip("no BPF maps here: %s", strerror(errno));
	int array = MUST(make(BPF_MAP_TYPE_ARRAY, 4, 16, 10, 0, "an_array"));
	int trie = MUST(make(BPF_MAP_TYPE_LPM_TRIE, 8, 4, 10, BPF_F_NO_PREALLOC, "a_trie"));
	int each = MUST(make(BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 3, 0, "per_cpu"));
	int frozen = MUST(make(BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0, "frozen"));
	uint32_t number = 7;
	union bpf_attr freeze = { .map_fd = (unsigned)frozen };
	MUST(set(frozen, &(uint32_t){ 0 }, &number));
	MUST(bpf(BPF_MAP_FREEZE, &freeze));
	union bpf_attr again = { .map_id = info_of(hash).id, .open_flags = BPF_F_RDONLY };
	int reader = MUST(bpf(BPF_MAP_GET_FD_BY_ID, &again));
	char *directory = specimen_path("dir/bpffs"), *pin = specimen_path("dir/bpffs/program");
	MUST(mkdir(directory, 0700));
	MUST(mount("none", directory, "bpf", 0, NULL));
	int program = MUST(load());
	union bpf_attr pinning = { .pathname = (uintptr_t)pin, .bpf_fd = (unsigned)program };
	MUST(bpf(BPF_OBJ_PIN, &pinning));

	while (specimen_round()) {
		static uint64_t per_cpu[PER_CPU_ROOM], seen_per_cpu[PER_CPU_ROOM];
		char value[16] = "", seen[16];
		uint32_t route[2] = { 24, 0x0002010a }, nearest[2] = { 32, 0x0702010a }, cell = 1;
		for (uint64_t key = 0; key < 50; key++) {
			snprintf(value, sizeof(value), "value %d", (int)key + specimen_number());
			MUST(set(hash, &key, value));
		}
		MUST(set(array, &(uint32_t){ 9 }, "the last of all"));
		MUST(set(trie, route, &number));
		for (int i = 0; i < PER_CPU_ROOM; i++)
			per_cpu[i] = (uint64_t)(i * 3 + specimen_number());
		MUST(set(each, &cell, per_cpu));
		specimen_ready();
		struct bpf_map_info info = info_of(hash);
		expect_int("type", BPF_MAP_TYPE_HASH, info.type);
		expect_int("entries", 100, info.max_entries);
		expect_int("flags", BPF_F_NO_PREALLOC, info.map_flags);
		expect_text("name", "a_hash", info.name);
		for (uint64_t key = 0; key < 50; key += 7) {
			snprintf(value, sizeof(value), "value %d", (int)key + specimen_number());
			expect_ok("in the hash", get(hash, &key, seen));
			expect_bytes("is", value, seen, 12);
		}
		expect_errno("and no more", ENOENT, get(hash, &(uint64_t){ 51 }, seen));
		expect_ok("in the array", get(array, &(uint32_t){ 9 }, seen));
		expect_text("is", "the last of all", seen);
		expect_ok("the nearest in the trie", get(trie, nearest, seen));
		expect_int("is", 7, *(uint32_t *)seen);
		memset(seen_per_cpu, 0, sizeof(seen_per_cpu));
		expect_ok("per processor", get(each, &cell, seen_per_cpu));
		size_t n = 0;
		while (n < PER_CPU_ROOM && seen_per_cpu[n] == per_cpu[n])
			n++;
		expect_between("processors", sysconf(_SC_NPROCESSORS_ONLN), PER_CPU_ROOM, (long long)n);
		expect_errno("the frozen one is", EPERM, set(frozen, &(uint32_t){ 0 }, &number));
		expect_errno("the reader does not write", EPERM, set(reader, &(uint64_t){ 1 }, value));
		MUST(set(hash, &(uint64_t){ 60 }, "through this"));
		expect_ok("but is the same map", get(reader, &(uint64_t){ 60 }, seen));
		expect_bytes("which has", "through this", seen, 12);
		check_program(program);
	}
	umount(directory);
	return specimen_end();
}
