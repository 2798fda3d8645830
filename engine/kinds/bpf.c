/*
 * BPF maps and programs.
 *
 * A map that only the tree has is made again: attributes, type information,
 * content.  What is pinned in a bpffs is got from there, if it still is there.  A
 * program cannot be read in a form that could be loaded again (the kernel gives out
 * what its verifier made of it), nor can a map be given to one that is loaded:
 * both are refused, unless pinned.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "engine/mounts.h"
#include "store/scope.h"

enum { BPF_KIND_MAP = 1, BPF_KIND_PROGRAM = 2, DEPTH = 8 };

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int get_info(int fd, void *info, unsigned size)
{
	union bpf_attr attr = {.info = {.bpf_fd = (unsigned)fd, .info_len = size, .info = (uintptr_t)info}};
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
}

static bool is_map(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:bpf-map");
}

static bool bpf_matches(const struct fd_view *fd)
{
	return (is_map(fd) || !strcmp(fd->link, "anon_inode:bpf-prog")) && fd->dup >= 0;
}

static uint64_t bpf_key(const void *in)
{
	const image_file_bpf *state = in;
	return (uint64_t)state->kind << 32 | state->id;
}

/* --- pins ------------------------------------------------------------------------ */

static int get_pinned(const char *path, unsigned flags)
{
	union bpf_attr attr = {.pathname = (uintptr_t)path, .file_flags = flags};
	return bpf(BPF_OBJ_GET, &attr);
}

/* Its number among maps or programs; 0: another kind of thing. */
static unsigned id_of(int fd, unsigned kind)
{
	char path[64], link[64] = "";
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, link, sizeof(link) - 1) < 0 ||
	    strcmp(link, kind == BPF_KIND_MAP ? "anon_inode:bpf-map" : "anon_inode:bpf-prog"))
		return 0;
	struct bpf_map_info map = {0};
	struct bpf_prog_info program = {0};
	if (kind == BPF_KIND_MAP)
		return get_info(fd, &map, sizeof(map)) < 0 ? 0 : map.id;
	return get_info(fd, &program, sizeof(program)) < 0 ? 0 : program.id;
}

static bool find_pin_below(const char *directory, const image_file_bpf *state, int depth, char found[4096])
{
	cleanup_dir DIR *dir = opendir(directory);
	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		char path[4096];
		if (entry->d_name[0] == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name) >= (int)sizeof(path))
			continue;
		if (entry->d_type == DT_DIR) {
			if (depth && find_pin_below(path, state, depth - 1, found))
				return true;
			continue;
		}
		cleanup_fd int fd = get_pinned(path, 0);
		if (fd < 0 || id_of(fd, state->kind) != state->id)
			continue;
		snprintf(found, 4096, "%s", path);
		return true;
	}
	return false;
}

static bool find_pin(const image_file_bpf *state, char found[4096])
{
	cleanup_free char *text = mounts_read(NULL);
	struct mounts_line mount;
	for (char *cursor = text; mounts_next(&cursor, &mount);)
		if (!strcmp(mount.type, "bpf") && find_pin_below(mount.point, state, DEPTH, found))
			return true;
	return false;
}

/* --- dump --------------------------------------------------------------------- */

/* The loaded program that uses the map; 0: none. */
static unsigned user_of_map(unsigned map)
{
	union bpf_attr next = {0};
	while (bpf(BPF_PROG_GET_NEXT_ID, &next) == 0) {
		union bpf_attr get = {.prog_id = next.next_id};
		unsigned maps[64];
		struct bpf_prog_info info = {.nr_map_ids = 64, .map_ids = (uintptr_t)maps};
		cleanup_fd int program = bpf(BPF_PROG_GET_FD_BY_ID, &get);
		if (program >= 0 && get_info(program, &info, sizeof(info)) == 0)
			for (unsigned i = 0; i < info.nr_map_ids && i < 64; i++)
				if (maps[i] == map)
					return next.next_id;
		next.start_id = next.next_id;
	}
	return 0;
}

static size_t possible_processors(void)
{
	/* "0-3": sysfs, cpu/possible. Every one has a value of its own. */
	unsigned first = 0, last = 0;
	cleanup_file FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
	int n = file ? fscanf(file, "%u-%u", &first, &last) : 0;
	return n == 2 ? last + 1 : n == 1 ? first + 1 : (size_t)get_nprocs_conf();
}

static bool is_per_processor(unsigned type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static size_t value_bytes(const image_file_bpf *state)
{
	if (!is_per_processor(state->type))
		return state->value_size;
	return ((size_t)state->value_size + 7) / 8 * 8 * possible_processors();
}

static bool can_be_read(unsigned type)
{
	return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_LRU_HASH ||
	       type == BPF_MAP_TYPE_LPM_TRIE || is_per_processor(type);
}

/* A descriptor that may read it, whatever the program's own may. */
static int open_by_id(unsigned id, unsigned flags)
{
	union bpf_attr attr = {.map_id = id, .open_flags = flags};
	return bpf(BPF_MAP_GET_FD_BY_ID, &attr);
}

static int save_content(const struct fd_view *fd, image_file_bpf *state, struct fsnap_error *err)
{
	size_t value = value_bytes(state), most = state->max_entries;
	if (most * (value + state->key_size) > IMAGE_STATE)
		return refuse_fd(fd, err, "Load BPF programs from a process outside the tree.",
				 "a BPF map of more than %d bytes", IMAGE_STATE);
	state->keys.keys_val = malloc(most * state->key_size + 1);
	state->values.values_val = malloc(most * value + 1);
	cleanup_fd int map = open_by_id(state->id, 0);
	if (!state->keys.keys_val || !state->values.values_val)
		return no_memory(err);
	uint64_t position[32] = {0}; /* as wide as a key may be asked to be */
	cleanup_free char *place = malloc(state->key_size + sizeof(position));
	union bpf_attr attr = {.batch = {.out_batch = (uintptr_t)place,
					 .keys = (uintptr_t)state->keys.keys_val,
					 .values = (uintptr_t)state->values.values_val,
					 .count = state->max_entries,
					 .map_fd = (unsigned)(map < 0 ? fd->dup : map)}};
	if (!place || (bpf(BPF_MAP_LOOKUP_BATCH, &attr) < 0 && errno != ENOENT))
		return refuse_fd(fd, err, "Load BPF programs from a process outside the tree.",
				 "a BPF map that cannot be read (%s)", strerror(errno));
	state->keys.keys_len = attr.batch.count * state->key_size;
	state->values.values_len = (unsigned)(attr.batch.count * value);
	return 0;
}

/* What its keys and values look like, for people and for other programs. */
static int save_types(const struct bpf_map_info *info, image_file_bpf *state, struct fsnap_error *err)
{
	union bpf_attr attr = {.btf_id = info->btf_id};
	struct bpf_btf_info types = {0};
	if (!info->btf_id || !(info->btf_key_type_id || info->btf_value_type_id))
		return 0;
	cleanup_fd int btf = bpf(BPF_BTF_GET_FD_BY_ID, &attr);
	if (btf < 0 || get_info(btf, &types, sizeof(types)) < 0 || !types.btf_size)
		return 0;
	state->types.types_val = malloc(types.btf_size);
	if (!state->types.types_val)
		return no_memory(err);
	types = (struct bpf_btf_info){.btf = (uintptr_t)state->types.types_val, .btf_size = types.btf_size};
	if (get_info(btf, &types, sizeof(types)) < 0)
		return 0;
	state->types.types_len = types.btf_size;
	state->key_type = info->btf_key_type_id;
	state->value_type = info->btf_value_type_id;
	return 0;
}

static int save_map(const struct fd_view *fd, image_file_bpf *state, struct fsnap_error *err)
{
	struct bpf_map_info info = {0};
	uint64_t frozen = 0;
	char pin[4096] = "";
	if (get_info(fd->dup, &info, sizeof(info)) < 0)
		return refuse_fd(fd, err, "Run fsnap as root.", "a BPF map that cannot be looked into");
	fdinfo_number(fd->info, "frozen", 10, &frozen);
	state->id = info.id;
	state->type = info.type;
	state->key_size = info.key_size;
	state->value_size = info.value_size;
	state->max_entries = info.max_entries;
	state->map_flags = info.map_flags;
	state->frozen = frozen != 0;
	if (set_string(&state->name, info.name, err) < 0)
		return -1;
	bool pinned = find_pin(state, pin);
	if (set_string(&state->pin, pin, err) < 0 || pinned)
		return pinned ? 0 : -1;
	if (!can_be_read(info.type))
		return refuse_fd(fd, err, "Pin it in a bpffs, or load it from a process outside the tree.",
				 "a BPF map of type %u, whose content cannot be read without changing it", info.type);
	unsigned user = user_of_map(info.id);
	if (user)
		return refuse_fd(fd, err, "Pin it in a bpffs, or load it from a process outside the tree.",
				 "a BPF map that the loaded program %u uses", user);
	return save_types(&info, state, err) < 0 ? -1 : save_content(fd, state, err);
}

static int save_program(const struct fd_view *fd, image_file_bpf *state, struct fsnap_error *err)
{
	struct bpf_prog_info info = {0};
	char pin[4096] = "";
	if (get_info(fd->dup, &info, sizeof(info)) < 0)
		return refuse_fd(fd, err, "Run fsnap as root.", "a BPF program that cannot be looked into");
	state->id = info.id;
	state->type = info.type;
	memcpy(state->tag, info.tag, sizeof(state->tag));
	if (!find_pin(state, pin))
		return refuse_fd(fd, err, "Pin it in a bpffs, or load it from a process outside the tree: the kernel "
					  "does not give back what was loaded.",
				 "a BPF program");
	return set_string(&state->name, info.name, err) < 0 ? -1 : set_string(&state->pin, pin, err);
}

static int bpf_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_bpf *state = out;
	state->kind = is_map(fd) ? BPF_KIND_MAP : BPF_KIND_PROGRAM;
	int result = state->kind == BPF_KIND_MAP ? save_map(fd, state, err) : save_program(fd, state, err);
	if ((!state->name && set_string(&state->name, "", err) < 0) ||
	    (!state->pin && set_string(&state->pin, "", err) < 0))
		return -1;
	return result;
}

/* --- restore -------------------------------------------------------------------- */

static int failed(const image_file_bpf *state, struct fsnap_error *err, const char *step)
{
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "BPF object %s: %s", state->pin[0] ? state->pin : state->name,
		    step);
}

static unsigned open_flags(const image_file *file)
{
	unsigned access = file->flags & O_ACCMODE;
	return access == O_RDONLY ? BPF_F_RDONLY : access == O_WRONLY ? BPF_F_WRONLY : 0;
}

static bool is_the_same(int fd, const image_file_bpf *state)
{
	struct bpf_map_info map = {0};
	struct bpf_prog_info program = {0};
	if (state->kind == BPF_KIND_MAP)
		return get_info(fd, &map, sizeof(map)) == 0 && map.type == state->type &&
		       map.key_size == state->key_size && map.value_size == state->value_size &&
		       map.max_entries == state->max_entries;
	return get_info(fd, &program, sizeof(program)) == 0 && !memcmp(program.tag, state->tag, sizeof(state->tag));
}

static int bpf_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	return restore_may_use(restore, ((const image_file_bpf *)in)->pin, err);
}

static int make_pinned(const image_file *file, const image_file_bpf *state, struct fsnap_error *err)
{
	cleanup_fd int fd = get_pinned(state->pin, state->kind == BPF_KIND_MAP ? open_flags(file) : 0);
	if (fd < 0) {
		failed(state, err, "it is not pinned there any more");
		return error_hint(err, "Load it, and pin it where it was.");
	}
	if (is_the_same(fd, state))
		return steal_fd(&fd);
	fail(err, FSNAP_E_FILE_CHANGED, 0, "%s is not the BPF object it was", state->pin);
	return error_hint(err, "Pin the one it was there.");
}

static int load_types(const image_file_bpf *state)
{
	union bpf_attr attr = {.btf = (uintptr_t)state->types.types_val, .btf_size = state->types.types_len};
	return state->types.types_len ? bpf(BPF_BTF_LOAD, &attr) : -1;
}

static int fill(int fd, const image_file_bpf *state)
{
	size_t value = value_bytes(state), n = state->key_size ? state->keys.keys_len / state->key_size : 0;
	if (n * value != state->values.values_len)
		return errno = EINVAL, -1; /* more processors, or fewer */
	for (size_t i = 0; i < n; i++) {
		union bpf_attr attr = {.map_fd = (unsigned)fd,
				       .key = (uintptr_t)(state->keys.keys_val + i * state->key_size),
				       .value = (uintptr_t)(state->values.values_val + i * value)};
		if (bpf(BPF_MAP_UPDATE_ELEM, &attr) < 0)
			return -1;
	}
	union bpf_attr attr = {.map_fd = (unsigned)fd};
	return state->frozen ? bpf(BPF_MAP_FREEZE, &attr) : 0;
}

static int make_map(const image_file_bpf *state, struct fsnap_error *err)
{
	cleanup_fd int types = load_types(state);
	union bpf_attr attr = {.map_type = state->type, .key_size = state->key_size,
			       .value_size = state->value_size, .max_entries = state->max_entries,
			       .map_flags = state->map_flags};
	snprintf(attr.map_name, sizeof(attr.map_name), "%s", state->name);
	if (types >= 0) {
		attr.btf_fd = (unsigned)types;
		attr.btf_key_type_id = state->key_type;
		attr.btf_value_type_id = state->value_type;
	}
	cleanup_fd int fd = bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0)
		return failed(state, err, "create the map");
	return fill(fd, state) < 0 ? failed(state, err, "fill the map") : steal_fd(&fd);
}

/* Another open file of a map that was made: by its new number. */
static int open_again(int fd, unsigned flags)
{
	unsigned id = id_of(fd, BPF_KIND_MAP);
	return id ? open_by_id(id, flags) : -1;
}

static int bpf_make(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err)
{
	const image_file_bpf *state = in;
	const image_file *other;
	if (state->pin[0])
		return make_pinned(file, state, err);
	if (state->kind != BPF_KIND_MAP)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u: a BPF program without a pin", file->id);
	for (size_t at = 0; restore_file_next(restore, &kind_bpf, bpf_key(state), &at, &other);)
		if (restore_fd(restore, other->id) >= 0) {
			int fd = open_again(restore_fd(restore, other->id), open_flags(file));
			return fd < 0 ? failed(state, err, "open the map once more") : fd;
		}
	int fd = make_map(state, err);
	if (fd < 0 || !open_flags(file))
		return fd;
	int limited = open_again(fd, open_flags(file));
	if (limited < 0)
		failed(state, err, "open the map");
	close(fd);
	return limited;
}

const struct file_kind kind_bpf = {
	.name = "bpf",
	.keeps = "maps of the tree's own (hash, array, trie; per processor): attributes, types, content; what is "
		 "pinned in a bpffs",
	.refuses = "programs that are not pinned; maps that loaded programs use, or that cannot be read",
	.shown_by = "bpf_maps",
	.xdr = (xdrproc_t)xdr_image_file_bpf,
	.key = bpf_key,
	.matches = bpf_matches,
	.save = bpf_save,
	.remap = bpf_remap,
	.make = bpf_make,
};
