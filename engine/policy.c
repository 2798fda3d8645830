/* policy.c - rules of the restoring side, held against an image. */
#define _GNU_SOURCE
#include "engine/policy.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "engine/kinds/kinds.h"
#include "engine/model.h"
#include "engine/remap.h"
#include "store/scope.h"

#define FILE_OF_RULES "/etc/fsnap/policy"

struct policy_rule {
	bool deny;
	char *what;
};

static const char *const classes[] = { "credentials", "devices", "network", "namespaces", "unconfined" };

/* --- rules ------------------------------------------------------------------------------ */

static bool is_class(const char *what)
{
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (strcmp(classes[i], what) == 0)
			return true;
	return false;
}

static int add(struct policy *policy, bool deny, const char *what, const char *where, struct fsnap_error *err)
{
	if (what[0] != '/' && !is_class(what)) {
		fail(err, FSNAP_E_USAGE, 0, "%s: '%s' is nothing a policy knows", where, what);
		return error_hint(err, "credentials, devices, network, namespaces, unconfined, or an absolute path");
	}
	struct policy_rule *rules = realloc(policy->rules, (policy->n + 1) * sizeof(*rules));
	if (!rules)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", where);
	policy->rules = rules;
	rules[policy->n] = (struct policy_rule){ deny, strdup(what) };
	if (!rules[policy->n].what)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", where);
	size_t length = strlen(what);
	if (length > 1 && what[length - 1] == '/')
		rules[policy->n].what[length - 1] = '\0';
	policy->n++;
	policy->listed |= !deny && what[0] == '/';
	return 0;
}

static int add_line(struct policy *policy, char *line, const char *path, struct fsnap_error *err)
{
	line[strcspn(line, "#\n")] = '\0';
	char *rest = NULL, *word = strtok_r(line, " \t", &rest), *what = word ? strtok_r(NULL, " \t", &rest) : NULL;
	if (!word)
		return 0;
	bool deny = strcmp(word, "deny") == 0;
	if ((!deny && strcmp(word, "allow") != 0) || !what || strtok_r(NULL, " \t", &rest)) {
		fail(err, FSNAP_E_USAGE, 0, "policy %s: '%s' is no rule", path, word);
		return error_hint(err, "a line is `deny WHAT` or `allow WHAT`");
	}
	return add(policy, deny, what, path, err);
}

/* A policy that cannot be read is no permission. */
static int add_file(struct policy *policy, const char *path, bool must, struct fsnap_error *err)
{
	cleanup_file FILE *in = fopen(path, "re");
	cleanup_free char *line = NULL;
	size_t room = 0;
	if (!in && !must && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (!in) {
		fail(err, FSNAP_E_PERMISSION, errno, "policy %s", path);
		return error_hint(err, "$FSNAP_POLICY names it: make it readable, or unset that");
	}
	while (getline(&line, &room, in) >= 0)
		if (add_line(policy, line, path, err) < 0)
			return -1;
	return ferror(in) ? fail(err, FSNAP_E_SYSTEM, errno, "policy %s", path) : 0;
}

static int add_list(struct policy *policy, bool deny, const char *const *list, struct fsnap_error *err)
{
	for (; list && *list; list++)
		if (add(policy, deny, *list, deny ? "--deny" : "--allow", err) < 0)
			return -1;
	return 0;
}

int policy_open(struct policy *policy, const char *const *allow, const char *const *deny, struct fsnap_error *err)
{
	const char *more = secure_getenv("FSNAP_POLICY");
	if (add_file(policy, FILE_OF_RULES, false, err) < 0 || (more && add_file(policy, more, true, err) < 0) ||
	    add_list(policy, true, deny, err) < 0)
		return -1;
	return add_list(policy, false, allow, err);
}

void policy_close(struct policy *policy)
{
	for (size_t i = 0; i < policy->n; i++)
		free(policy->rules[i].what);
	free(policy->rules);
	*policy = (struct policy){ 0 };
}

static bool denies(const struct policy *policy, const char *class)
{
	bool deny = false;
	for (size_t i = 0; i < policy->n; i++)
		if (strcmp(policy->rules[i].what, class) == 0)
			deny = policy->rules[i].deny;
	return deny;
}

static int forbidden(struct fsnap_error *err, const char *what)
{
	return error_hint(err, "the policy here says `deny %s` (" FILE_OF_RULES ", --deny); --allow %s lifts that, if it "
			       "is meant", what, what);
}

/* --- paths ------------------------------------------------------------------------------ */

static bool path_denied(const struct policy *policy, const char *path)
{
	const struct policy_rule *best = NULL;
	for (size_t i = 0; i < policy->n; i++)
		if (policy->rules[i].what[0] == '/' && remap_covers(policy->rules[i].what, path) &&
		    (!best || strlen(policy->rules[i].what) >= strlen(best->what)))
			best = &policy->rules[i];
	return best ? best->deny : policy->listed;
}

bool policy_names_paths(const struct policy *policy)
{
	for (size_t i = 0; i < policy->n; i++)
		if (policy->rules[i].what[0] == '/')
			return true;
	return false;
}

static bool leads_up(const char *path)
{
	size_t length = strlen(path);
	return strstr(path, "/../") || (length >= 3 && strcmp(path + length - 3, "/..") == 0);
}

/* Where a path leads; what is not there yet is in the nearest directory above it that is. False: nobody can say. */
static bool resolve(const char *path, char real[PATH_MAX])
{
	cleanup_free char *here = path[0] == '/' ? strdup("") : getcwd(NULL, 0), *whole = NULL, *above = NULL;
	if (!here || asprintf(&whole, "%s%s%s", here, *here ? "/" : "", path) < 0 || !(above = strdup(whole)))
		return false;
	size_t kept = strlen(whole);
	while (kept > 0 && !realpath(above, real)) {
		while (kept > 0 && whole[--kept] != '/')
			;
		above[kept] = '\0';
	}
	size_t length = kept > 0 && strcmp(real, "/") != 0 ? strlen(real) : 0, room = PATH_MAX - length;
	return !leads_up(whole + kept) && (size_t)snprintf(real + length, room, "%s", whole + kept) < room;
}

static int refuse_path(const char *path, const char *denied, struct fsnap_error *err)
{
	fail(err, FSNAP_E_FORBIDDEN, 0, "%s%s%s", path, denied == path ? "" : ", which leads to ",
	     denied == path ? "" : denied);
	return error_hint(err, "a policy denies it (" FILE_OF_RULES ", --deny, or --allow of other paths); --allow %s "
			       "lifts that, if it is meant", denied);
}

/* The root directory itself says nothing about what is in it: every process has it as its root. */
int policy_check_path(const struct policy *policy, const char *path, struct fsnap_error *err)
{
	char real[PATH_MAX];
	if (!policy_names_paths(policy) || !path[0] || strcmp(path, "/") == 0)
		return 0;
	if (path[0] == '/' && path_denied(policy, path))
		return refuse_path(path, path, err);
	if (!resolve(path, real))
		return refuse_path(path, "nobody knows where", err);
	return strcmp(real, "/") != 0 && path_denied(policy, real) ? refuse_path(path, real, err) : 0;
}

int policy_check_open(const struct policy *policy, int fd, struct fsnap_error *err)
{
	char name[32], real[PATH_MAX];
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	ssize_t n = policy_names_paths(policy) ? readlink(name, real, sizeof(real) - 1) : 0;
	if (n < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "where an open file is");
	real[n] = '\0';
	return n > 1 && real[0] == '/' && path_denied(policy, real) ? refuse_path(real, real, err) : 0;
}

/* --- the image -------------------------------------------------------------------------- */

struct own_rights {
	uint64_t permitted;
	gid_t groups[NGROUPS_MAX + 1];
	int n_groups;
};

static void find_own_rights(struct own_rights *own)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	if (syscall(SYS_capget, &head, data) == 0)
		own->permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
	own->n_groups = getgroups(NGROUPS_MAX, own->groups);
	own->groups[own->n_groups < 0 ? (own->n_groups = 0) : own->n_groups] = getegid();
	own->n_groups++;
}

static bool has_group(const struct own_rights *own, gid_t group)
{
	for (int i = 0; i < own->n_groups; i++)
		if (own->groups[i] == group)
			return true;
	return false;
}

static bool exceeds(const struct own_rights *own, const image_creds *creds)
{
	for (int i = 0; i < 4; i++)
		if (creds->uid[i] != geteuid() || !has_group(own, creds->gid[i]))
			return true;
	for (unsigned i = 0; i < creds->groups.groups_len; i++)
		if (!has_group(own, creds->groups.groups_val[i]))
			return true;
	return (creds->permitted | creds->effective | creds->ambient) & ~own->permitted;
}

static int check_threads(const struct policy *policy, const image_process *process, const struct own_rights *own,
			 struct fsnap_error *err)
{
	for (unsigned i = 0; i < process->threads.threads_len; i++) {
		const image_thread *thread = &process->threads.threads_val[i];
		if (denies(policy, "credentials") && exceeds(own, &thread->creds)) {
			fail(err, FSNAP_E_FORBIDDEN, 0, "process %d (%s): it is to run as user %u with rights that you do "
			     "not have", process->pid, thread->comm, thread->creds.uid[1]);
			return forbidden(err, "credentials");
		}
		if (denies(policy, "unconfined") && thread->seccomp == 0) {
			fail(err, FSNAP_E_FORBIDDEN, 0, "process %d (%s): it has no seccomp filter", process->pid,
			     thread->comm);
			return forbidden(err, "unconfined");
		}
	}
	return 0;
}

/* Which class a kind of file is of; NULL: none. */
static const char *class_of(const char *kind)
{
	static const struct {
		const char *kind, *class;
	} table[] = {
		{ "inet", "network" },	{ "tcp", "network" }, { "netlink", "network" }, { "packet", "network" },
		{ "tun", "devices" },	{ "bpf", "devices" }, { "device", "devices" },	{ "namespace", "namespaces" },
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(table[i].kind, kind) == 0)
			return table[i].class;
	return NULL;
}

static bool is_harmless(dev_t rdev)
{
	static const unsigned minors[] = { 3, 5, 7, 8, 9 }; /* null, zero, full, random, urandom; all of major 1 */
	bool harmless = false;
	for (size_t i = 0; i < sizeof(minors) / sizeof(minors[0]); i++)
		harmless |= rdev == makedev(1, minors[i]);
	return harmless;
}

int policy_check_device(const struct policy *policy, const char *path, dev_t rdev, struct fsnap_error *err)
{
	if (!denies(policy, "devices") || is_harmless(rdev))
		return 0;
	fail(err, FSNAP_E_FORBIDDEN, 0, "%s is a device", path);
	return forbidden(err, "devices");
}

static bool is_harmless_device(const image_file *file, const struct file_kind *kind)
{
	image_file_device state = { 0 };
	XDR xdr;
	bool harmless = false;
	if (strcmp(file->kind, "device") != 0)
		return false;
	xdrmem_create(&xdr, file->state.state_val, file->state.state_len, XDR_DECODE);
	harmless = kind->xdr(&xdr, &state) && is_harmless(state.rdev);
	xdr_free(kind->xdr, (char *)&state);
	return harmless;
}

static int check_file(const struct policy *policy, const image_file *file, struct fsnap_error *err)
{
	const struct file_kind *kind = file_kind_find(file->kind);
	const char *class = class_of(file->kind);
	if (!kind || !class || !denies(policy, class) || is_harmless_device(file, kind))
		return 0;
	fail(err, FSNAP_E_FORBIDDEN, 0, "open file %u (%s, %s)", file->id, file->kind, file->label);
	return forbidden(err, class);
}

/* Its frame is 256 KiB large, which stack-clash protection touches as it is entered: not where there is no policy. */
static __attribute__((noinline)) int check_all(const struct policy *policy, const struct model *model,
					       struct fsnap_error *err)
{
	struct own_rights own = { 0 };
	find_own_rights(&own);
	for (size_t i = 0; i < model->n_processes; i++)
		if (check_threads(policy, &model->processes[i], &own, err) < 0)
			return -1;
	for (size_t i = 0; i < model->n_files; i++)
		if (check_file(policy, &model->files[i], err) < 0)
			return -1;
	return 0;
}

int policy_check(const struct policy *policy, const struct model *model, struct fsnap_error *err)
{
	return policy->n ? check_all(policy, model, err) : 0;
}
