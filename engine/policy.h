/*
 * policy.h - what a restore may do on this machine, whatever the image says.
 *
 * Rules are `deny WHAT` and `allow WHAT`: first those of /etc/fsnap/policy, a line each (# begins a comment), then
 * those of the file $FSNAP_POLICY, then what the caller denies, then what it allows. The last that fits decides;
 * without any, all is allowed that the caller may do. WHAT is
 *
 *	credentials	users, groups or capabilities that the caller does not have itself
 *	devices		character devices other than null, zero, full, random, urandom; network interfaces; BPF
 *	network		sockets other than unix ones
 *	namespaces	namespaces that are held open
 *	unconfined	processes without a seccomp filter
 *	/a/path		files at or below it: open, mapped, a directory, a socket's name; of several rules the longest
 *			path decides. As soon as one path is allowed, those that no rule names are denied.
 *
 * What it says is checked before anything is made.
 */
#ifndef ENGINE_POLICY_H
#define ENGINE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "store/error.h"

struct model;

struct policy {
	struct policy_rule *rules;
	size_t n;
	bool listed; /* a path is allowed: those that are not are denied */
};

/* allow, deny: NULL, or NULL-ended lists of WHAT. */
int policy_open(struct policy *policy, const char *const *allow, const char *const *deny, struct fsnap_error *err);
void policy_close(struct policy *policy);

int policy_check(const struct policy *policy, const struct model *model, struct fsnap_error *err);

/* Are some files denied, or only some allowed? */
bool policy_names_paths(const struct policy *policy);

/* One name of a file, and what it leads to now, or would if it were made. */
int policy_check_path(const struct policy *policy, const char *path, struct fsnap_error *err);
/* What was opened, by whatever name or handle; a descriptor of ours. */
int policy_check_open(const struct policy *policy, int fd, struct fsnap_error *err);
/* A device, by whatever kind of file it is had. */
int policy_check_device(const struct policy *policy, const char *path, dev_t rdev, struct fsnap_error *err);

#endif
