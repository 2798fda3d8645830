/*
 * Names of Unix sockets.  A name is the string the program gave to bind(2), and
 * getsockname(2) tells it again: a relative path stays one, so binding happens in
 * the directory it starts from.  Where the name must be seen but no file must
 * appear (the original has lost its own, or it is that of a listener who has
 * accepted), it is bound in the shadow.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/errand.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define NO_NAME (sizeof(sa_family_t)) /* length of the address of an unbound socket */

#define PATH_ROOM 160

bool unix_is_abstract(struct unix_address name)
{
	return name.length > NO_NAME && !name.bytes[NO_NAME];
}

/* The path as a string, or NULL: unbound or abstract. */
static const char *path_in(struct unix_address name, char *path)
{
	if (name.length <= NO_NAME || unix_is_abstract(name))
		return NULL;
	memcpy(path, name.bytes + NO_NAME, name.length - NO_NAME);
	path[name.length - NO_NAME] = '\0';
	return path;
}

static const char *path_of(const image_file_unix *state, char *path)
{
	return path_in(unix_address(state), path);
}

/* --- dump --------------------------------------------------------------------- */

/* The socket's file as the process sees it, if the path still leads to it. */
static bool find_file(const struct fd_view *fd, const struct unix_facts *facts, const char *path,
		      struct stat *found)
{
	cleanup_fd int from = openat(fd->process->proc, path[0] == '/' ? "root" : "cwd",
				     O_PATH | O_DIRECTORY | O_CLOEXEC);
	while (*path == '/')
		path++;
	return from >= 0 && !fstatat(from, path, found, AT_SYMLINK_NOFOLLOW) &&
	       S_ISSOCK(found->st_mode) && (uint32_t)found->st_ino == facts->file_ino;
}

static int save_file(const struct fd_view *fd, const struct unix_facts *facts,
		     image_file_unix *state, struct fsnap_error *err)
{
	char path[PATH_ROOM], directory[IMAGE_NAME];
	struct stat found;
	directory[0] = '\0';
	if (path_of(state, path)) {
		bool there = find_file(fd, facts, path, &found);
		if (there) {
			state->mode = found.st_mode;
			state->uid = found.st_uid;
			state->gid = found.st_gid;
		}
		if (path[0] != '/') {
			ssize_t size = readlinkat(fd->process->proc, "cwd", directory,
						  sizeof(directory) - 1);
			directory[size > 0 ? size : 0] = '\0';
		}
		if (path[0] != '/' && !there)
			return refuse_fd(fd, err, "Let the program bind it by an absolute path.",
					 "a Unix socket bound to the relative path %s, which no "
					 "longer leads to it",
					 path);
	}
	return set_string(&state->directory, directory, err);
}

int unix_save_name(const struct fd_view *fd, const struct unix_facts *facts, image_file_unix *state,
		   struct fsnap_error *err)
{
	char name[128];
	socklen_t size = sizeof(name);
	if (getsockname(fd->dup, (struct sockaddr *)name, &size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	if (set_bytes(&state->address.address_len, &state->address.address_val, name,
		      size > NO_NAME ? size : 0, err) < 0)
		return -1;
	size = sizeof(name);
	if (getpeername(fd->dup, (struct sockaddr *)name, &size) < 0)
		size = 0;
	if (set_bytes(&state->remote.remote_len, &state->remote.remote_val, name,
		      size > NO_NAME ? size : 0, err) < 0)
		return -1;
	return save_file(fd, facts, state, err);
}

/* --- where it is now ------------------------------------------------------------- */

/* One address: family, then the path. */
static int remap_address(struct restore *restore, u_int *len, char **val, struct fsnap_error *err)
{
	size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path);
	if (*len <= NO_NAME || *len > NO_NAME + room || (*val)[NO_NAME] != '/')
		return 0;
	cleanup_free char *was = strndup(*val + NO_NAME, *len - NO_NAME);
	cleanup_free char *path = was ? strdup(was) : NULL;
	if (!path)
		return no_memory(err);
	if (restore_remap(restore, &path, err) < 0)
		return -1;
	if (strcmp(path, was) == 0)
		return 0;
	size_t length = strlen(path) + 1;
	if (length > room) {
		fail(err, FSNAP_E_USAGE, 0, "%s would be %s, which is too long for a Unix socket", was, path);
		return error_hint(err, "map it to a path of at most %zu bytes", room - 1);
	}
	char *address = malloc(NO_NAME + length);
	if (!address)
		return no_memory(err);
	memcpy(address, *val, NO_NAME);
	memcpy(address + NO_NAME, path, length);
	free(*val);
	*val = address;
	*len = (u_int)(NO_NAME + length);
	return 0;
}

/* Whoever binds a relative path may have gone up in it. */
static int check_relative(struct restore *restore, const image_file_unix *state, struct fsnap_error *err)
{
	char buffer[PATH_ROOM], whole[IMAGE_NAME + PATH_ROOM + 1];
	const char *path = path_of(state, buffer);
	if (!path || path[0] == '/')
		return 0;
	snprintf(whole, sizeof(whole), "%s/%s", state->directory, path);
	return restore_may_use(restore, whole, err);
}

int unix_remap(struct restore *restore, image_file_unix *state, struct fsnap_error *err)
{
	if (remap_address(restore, &state->address.address_len, &state->address.address_val, err) < 0 ||
	    remap_address(restore, &state->remote.remote_len, &state->remote.remote_val, err) < 0 ||
	    restore_remap(restore, &state->directory, err) < 0)
		return -1;
	return check_relative(restore, state, err);
}

/* --- restore: the shadow ------------------------------------------------------------ */

#ifndef SYS_fsopen
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#define FSNAP_FSCONFIG_CMD_CREATE 6

int unix_shadow_root(struct unix_shadow *shadow)
{
	if (shadow->tried)
		return shadow->fd;
	shadow->tried = true;
	cleanup_fd int context = (int)syscall(SYS_fsopen, "tmpfs", 1 /* FSOPEN_CLOEXEC */);
	if (context >= 0 && syscall(SYS_fsconfig, context, FSNAP_FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		shadow->fd = (int)syscall(SYS_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0);
	return shadow->fd;
}

static const struct sockaddr *address_of(const image_file_unix *state, socklen_t *size)
{
	*size = state->address.address_len;
	if (*size > sizeof(struct sockaddr_un))
		*size = sizeof(struct sockaddr_un);
	return (const struct sockaddr *)state->address.address_val;
}

/* The directories that the name needs. The shadow has no others, so `..` leads nowhere new. */
static void make_directories(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
}

int unix_bind_here(struct unix_address name, int fd)
{
	char path[PATH_ROOM];
	bool file = path_in(name, path);
	if (file)
		make_directories(path);
	if (bind(fd, (const struct sockaddr *)name.bytes, name.length) < 0)
		return -1;
	return file ? chmod(path, 0777) : 0;
}

void unix_unbind_here(struct unix_address name)
{
	char path[PATH_ROOM];
	if (path_in(name, path))
		unlink(path);
}

/* --- restore: one step with a name ----------------------------------------------------- */

struct step {
	int (*run)(struct step *step);
	const image_file_unix *state;
	int fd;
	int result, sys;
	bool made; /* the name has a file that was not there before */
};

static void run_there(void *arg)
{
	struct step *step = arg;
	step->result = -1;
	if (!step->state->directory || !step->state->directory[0] || chdir(step->state->directory) == 0)
		step->result = step->run(step);
	step->sys = errno;
}

static void run_in_shadow(void *arg)
{
	struct step *step = arg;
	step->result = step->run(step);
	step->sys = errno;
}

/* In the directory that relative names start from; the working directory is our whole process'. */
static int run(struct step *step, int shadow)
{
	const char *directory = step->state->directory;
	if (shadow < 0 && !(directory && directory[0]))
		return step->run(step);
	struct errand errand = {.root = shadow, .work = shadow < 0 ? run_there : run_in_shadow, .arg = step};
	if (errand_run(&errand) < 0)
		return -1;
	errno = step->sys;
	return step->result;
}

/* The file of a socket that is gone: connecting finds nobody behind it. */
static bool is_left_over(struct step *step, const char *path)
{
	struct stat found;
	socklen_t size;
	const struct sockaddr *address = address_of(step->state, &size);
	cleanup_fd int probe = socket(AF_UNIX, step->state->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return probe >= 0 && !lstat(path, &found) && S_ISSOCK(found.st_mode) &&
	       connect(probe, address, size) < 0 && errno == ECONNREFUSED;
}

static int bind_step(struct step *step)
{
	char buffer[PATH_ROOM];
	const char *path = path_of(step->state, buffer);
	socklen_t size;
	const struct sockaddr *address = address_of(step->state, &size);
	int result = bind(step->fd, address, size);
	if (result < 0 && errno == EADDRINUSE && path) {
		if (is_left_over(step, path) && unlink(path) == 0)
			result = bind(step->fd, address, size);
		else
			errno = EADDRINUSE;
	} else {
		step->made = result == 0;
	}
	if (result < 0 || !path)
		return result;
	if (!step->state->mode) /* its file was gone */
		return unlink(path);
	/* bind(2) took our umask and our user. Owner first: it may clear bits of the mode. */
	if (chown(path, step->state->uid, step->state->gid) < 0 && errno != EPERM)
		return -1;
	return chmod(path, step->state->mode & 07777);
}

static int bind_shadow_step(struct step *step)
{
	return unix_bind_here(unix_address(step->state), step->fd);
}

static void remove_socket(const char *path)
{
	struct stat found;
	if (!lstat(path, &found) && S_ISSOCK(found.st_mode))
		unlink(path);
}

/* false: there is something already, which is not ours to remove. */
static bool take_back(struct unix_shadow *shadow, const image_file_unix *state, const char *path)
{
	char whole[IMAGE_NAME + PATH_ROOM + 1];
	struct stat found;
	bool relative = path[0] != '/' && state->directory && state->directory[0];
	snprintf(whole, sizeof(whole), "%s%s%s", relative ? state->directory : "", relative ? "/" : "", path);
	if (lstat(whole, &found) == 0)
		return false;
	restore_takes_back(shadow->restore, remove_socket, whole);
	return true;
}

bool unix_in_shadow(const image_file_unix *state)
{
	char path[PATH_ROOM];
	return !state->mode && path_of(state, path);
}

int unix_bind(struct unix_shadow *shadow, const image_file *file, const image_file_unix *state, int fd,
	      struct fsnap_error *err)
{
	char buffer[PATH_ROOM];
	const char *path = path_of(state, buffer);
	struct step step = {.run = bind_step, .state = state, .fd = fd};
	if (!state->address.address_len)
		return 0;
	if (state->address.address_len <= NO_NAME)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u (%s): its address is too short", file->id,
			    file->label);
	int root = unix_in_shadow(state) ? unix_shadow_root(shadow) : -1;
	if (root >= 0)
		step.run = bind_shadow_step;
	bool noted = path && root < 0 && take_back(shadow, state, path);
	int result = run(&step, root), sys = errno;
	if (noted && (!step.made || !state->mode))
		restore_not_made(shadow->restore);
	if (result == 0)
		return 0;
	char name[160];
	snprintf(name, sizeof(name), "%s%.*s", path ? "" : "@",
		 (int)(state->address.address_len - NO_NAME - !path),
		 state->address.address_val + NO_NAME + !path);
	fail(err, sys == EADDRINUSE ? FSNAP_E_ADDRESS_TAKEN : FSNAP_E_RESTORE_STEP, sys,
	     "bind Unix socket to %s", name);
	if (sys == EADDRINUSE)
		error_hint(err, "Perhaps the process that was saved still runs; `ss -xp` shows who has it. %s",
			   path ? "A copy beside it can have its files elsewhere: --map" :
				  "A copy beside it can have a network of its own: --net-ns");
	if (sys == ENOENT)
		error_hint(err, "Its directory is not there: make it again.");
	return file->id ? restore_blame(shadow->restore, file, err) : -1;
}

static int connect_step(struct step *step)
{
	socklen_t size;
	const struct sockaddr *address = address_of(step->state, &size);
	return connect(step->fd, address, size);
}

int unix_connect(struct unix_shadow *shadow, int fd, const image_file_unix *to)
{
	struct step step = {.run = connect_step, .state = to, .fd = fd};
	return run(&step, shadow && unix_in_shadow(to) ? unix_shadow_root(shadow) : -1);
}
