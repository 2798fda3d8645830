#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cgroup.h"
#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/procfs.h"
#include "store/scope.h"

/* Files that set something, in the order in which they are to be written. Which a group has depends on its
 * version and controllers: only version 2 knows those of `unified`, so nobody asks version 1 for them. */
static const struct setting {
	const char *name;
	bool unified;
} settings[] = {
	{ "cgroup.type", true }, { "cgroup.subtree_control", true }, { "cgroup.max.depth", true },
	{ "cgroup.max.descendants", true }, { "cpuset.cpus", false }, { "cpuset.mems", false },
	{ "cpuset.cpus.partition", true }, { "cpuset.cpu_exclusive", false },
	{ "cpuset.mem_exclusive", false }, { "cpuset.memory_migrate", false },
	{ "cpuset.sched_load_balance", false }, { "cpu.weight", true }, { "cpu.idle", false },
	{ "cpu.max", true }, { "cpu.max.burst", true }, { "cpu.uclamp.min", false },
	{ "cpu.uclamp.max", false }, { "cpu.shares", false }, { "cpu.cfs_period_us", false },
	{ "cpu.cfs_quota_us", false }, { "cpu.cfs_burst_us", false }, { "cpu.rt_period_us", false },
	{ "cpu.rt_runtime_us", false }, { "memory.min", true }, { "memory.low", true },
	{ "memory.high", true }, { "memory.max", true }, { "memory.swap.high", true },
	{ "memory.swap.max", true }, { "memory.zswap.max", true }, { "memory.oom.group", true },
	{ "memory.limit_in_bytes", false }, { "memory.memsw.limit_in_bytes", false },
	{ "memory.soft_limit_in_bytes", false }, { "memory.swappiness", false },
	{ "io.weight", true }, { "io.max", true }, { "blkio.weight", false },
	{ "blkio.throttle.read_bps_device", false }, { "blkio.throttle.write_bps_device", false },
	{ "blkio.throttle.read_iops_device", false }, { "blkio.throttle.write_iops_device", false },
	{ "pids.max", false }, { "hugetlb.2MB.max", true }, { "hugetlb.1GB.max", true },
	{ "hugetlb.2MB.limit_in_bytes", false }, { "net_cls.classid", false },
};

/* --- frozen ones ------------------------------------------------------------------ */

static bool says(const char *directory, const char *name, const char *word)
{
	char path[4200];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	cleanup_free char *text = procfs_read_once(AT_FDCWD, path, NULL, NULL);
	return text && strstr(text, word);
}

static int know_mounts(struct dump *dump, struct fsnap_error *err)
{
	if (dump->cgroup_mounts.n || readers_take_cgroup_mounts(dump))
		return 0;
	return cgroup_mounts_read(&dump->cgroup_mounts, err);
}

/* Processes of a frozen group may be seized, but run nothing for us; with version 1 they do not even stop. */
int cgroups_refuse_frozen(struct dump *dump, const struct process *process, struct fsnap_error *err)
{
	cleanup_free char *text = procfs_read_once(process->proc, "cgroup", NULL, NULL);
	if (!text || (dump->cgroup_seen && strcmp(text, dump->cgroup_seen) == 0))
		return 0;
	free(dump->cgroup_seen);
	dump->cgroup_seen = strdup(text);
	if (know_mounts(dump, err) < 0)
		return -1;
	char *cursor = text, *controllers, *path;
	while (cgroup_next(&cursor, &controllers, &path)) {
		bool second = !*controllers, freezer = strcmp(controllers, "freezer") == 0;
		cleanup_free char *directory = second || freezer ?
			cgroup_directory(&dump->cgroup_mounts, controllers, path) : NULL;
		if (!directory || !(second ? says(directory, "cgroup.events", "frozen 1") :
					     says(directory, "freezer.state", "FR")))
			continue;
		fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d (%s): its control group is frozen: %s", process->pid,
		     process->comm, path);
		return error_hint(err, "thaw it first: echo %s > %s/%s", second ? "0" : "THAWED", directory,
				  second ? "cgroup.freeze" : "freezer.state");
	}
	return 0;
}

/* --- who is where ----------------------------------------------------------------------- */

static int add_setting(image_cgroup *group, const char *name, char *value, struct fsnap_error *err)
{
	image_cgroup_setting *more = grow(group->settings.settings_val, group->settings.settings_len, sizeof(*more),
					  err);
	if (!more)
		return -1;
	group->settings.settings_val = more;
	more[group->settings.settings_len++] = (image_cgroup_setting){ strdup(name), strdup(value) };
	return 0;
}

/* In version 1 a hierarchy has files of its own controllers only: cpu.shares of cpu. */
static bool may_have(const image_cgroup *group, const struct setting *setting)
{
	const char *name = setting->name;
	size_t length = strcspn(name, ".");
	if (!*group->controllers)
		return true;
	if (setting->unified)
		return false;
	for (const char *at = group->controllers; *at; at += strcspn(at, ","), at += *at == ',')
		if (strcspn(at, ",") == length && strncmp(at, name, length) == 0)
			return true;
	return false;
}

static int read_settings(image_cgroup *group, const char *directory, struct fsnap_error *err)
{
	cleanup_fd int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; dir >= 0 && i < sizeof(settings) / sizeof(settings[0]); i++) {
		const char *name = settings[i].name;
		cleanup_free char *value = may_have(group, &settings[i]) ? procfs_read_once(dir, name, NULL, NULL) : NULL;
		if (value && *value && strlen(value) < IMAGE_NAME && add_setting(group, name, value, err) < 0)
			return -1;
	}
	return 0;
}

static bool is_known(const image_cgroups *all, const char *controllers, const char *path)
{
	for (u_int i = 0; i < all->groups.groups_len; i++)
		if (strcmp(all->groups.groups_val[i].controllers, controllers) == 0 &&
		    strcmp(all->groups.groups_val[i].path, path) == 0)
			return true;
	return false;
}

static int add_group(struct dump *dump, const char *controllers, const char *path, struct fsnap_error *err)
{
	image_cgroups *all = &dump->cgroups;
	image_cgroup *more = grow(all->groups.groups_val, all->groups.groups_len, sizeof(*more), err);
	if (!more)
		return -1;
	all->groups.groups_val = more;
	image_cgroup *group = &more[all->groups.groups_len++];
	*group = (image_cgroup){ .controllers = strdup(controllers), .path = strdup(path) };
	cleanup_free char *directory = cgroup_directory(&dump->cgroup_mounts, controllers, path);
	if (!group->controllers || !group->path)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "control groups");
	return directory ? read_settings(group, directory, err) : 0;
}

/* The group and all above it, the topmost first; the root group is always there. */
static int add_groups(struct dump *dump, const char *controllers, char *path, struct fsnap_error *err)
{
	for (char *end = path; *path == '/' && *end && path[1];) {
		end = strchrnul(end + 1, '/');
		char was = *end;
		*end = '\0';
		int result = is_known(&dump->cgroups, controllers, path) ? 0 :
									     add_group(dump, controllers, path, err);
		*end = was;
		if (result < 0)
			return -1;
	}
	return 0;
}

/* The number of a place in the image; most tasks are where the one before was. */
static int place(struct dump *dump, const char *text, unsigned hint, unsigned *number, struct fsnap_error *err)
{
	image_cgroups *all = &dump->cgroups;
	u_int n = all->places.places_len;
	for (u_int i = 0; i < n; i++) {
		*number = (hint + i) % n;
		if (strcmp(all->places.places_val[*number].text, text) == 0)
			return 0;
	}
	image_cgroup_place *more = grow(all->places.places_val, n, sizeof(*more), err);
	cleanup_free char *copy = strdup(text);
	if (!more || !copy)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "control groups");
	all->places.places_val = more;
	*number = n;
	more[n] = (image_cgroup_place){ strdup(text) };
	if (!more[n].text)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "control groups");
	all->places.places_len = n + 1;
	char *cursor = copy, *controllers, *path;
	while (cgroup_next(&cursor, &controllers, &path))
		if (add_groups(dump, controllers, path, err) < 0)
			return -1;
	return 0;
}

static int add_member(struct dump *dump, pid_t pid, pid_t tid, unsigned number, struct fsnap_error *err)
{
	image_cgroups *all = &dump->cgroups;
	image_cgroup_member *more = grow(all->members.members_val, all->members.members_len, sizeof(*more), err);
	if (!more)
		return -1;
	all->members.members_val = more;
	more[all->members.members_len++] = (image_cgroup_member){ pid, tid, number };
	return 0;
}

/* One that has ended since: it does not matter any more. */
static int note_process(struct dump *dump, const struct process *process, struct fsnap_error *err)
{
	unsigned common = 0, number;
	cleanup_free char *text = procfs_read_once(process->proc, "cgroup", NULL, NULL);
	if (!text)
		return 0;
	if (place(dump, text, 0, &common, err) < 0 ||
	    add_member(dump, process->pid, process->pid, common, err) < 0)
		return -1;
	for (size_t i = 0; process->n_tasks > 1 && i < process->n_tasks; i++) {
		char name[48];
		snprintf(name, sizeof(name), "task/%d/cgroup", process->tasks[i]->tid);
		cleanup_free char *own = procfs_read_once(process->proc, name, NULL, NULL);
		if (!own || strcmp(own, text) == 0)
			continue;
		if (place(dump, own, common, &number, err) < 0 ||
		    add_member(dump, process->pid, process->tasks[i]->tid, number, err) < 0)
			return -1;
	}
	return 0;
}

int cgroups_collect(struct dump *dump, struct fsnap_error *err)
{
	if (know_mounts(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (!dump->tree.processes[i]->image.zombie && note_process(dump, dump->tree.processes[i], err) < 0)
			return -1;
	if (dump->cgroups.places.places_len > 1)
		dump_note(dump, "the tree is in more than one control group: a restore puts it there again only with "
			  "--cgroup rejoin or create");
	return 0;
}

void cgroups_free(struct dump *dump)
{
	free(dump->cgroup_seen);
	readers_leave_cgroup_mounts(dump);
	cgroup_mounts_free(&dump->cgroup_mounts);
	xdr_free((xdrproc_t)xdr_image_cgroups, (char *)&dump->cgroups);
}
