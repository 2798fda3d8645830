/*
 * Namespaces held open (/proc/PID/ns/...): the process' own one comes back as the
 * one it has then; any other would be somebody else's after a restore.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"

/* As links call them, and the files of /proc/PID/ns that may lead there. */
static const struct {
	const char *type, *name;
} entries[] = {
	{"mnt", "mnt"}, {"net", "net"}, {"ipc", "ipc"}, {"uts", "uts"}, {"user", "user"},
	{"cgroup", "cgroup"}, {"pid", "pid"}, {"pid", "pid_for_children"}, {"time", "time"},
	{"time", "time_for_children"},
};
enum { ENTRIES = sizeof(entries) / sizeof(*entries) };

static bool is_of_type(const char *link, const char *type)
{
	size_t length = strlen(type);
	return !strncmp(link, type, length) && !strncmp(link + length, ":[", 2);
}

static bool namespace_matches(const struct fd_view *fd)
{
	for (size_t i = 0; i < ENTRIES; i++)
		if (is_of_type(fd->link, entries[i].type))
			return true;
	return false;
}

static int namespace_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_namespace *state = out;
	const char *type = "";
	for (size_t i = 0; i < ENTRIES; i++) {
		char path[32], own[64];
		if (!is_of_type(fd->link, entries[i].type))
			continue;
		type = entries[i].type;
		snprintf(path, sizeof(path), "ns/%s", entries[i].name);
		ssize_t length = readlinkat(fd->process->proc, path, own, sizeof(own) - 1);
		own[length < 0 ? 0 : length] = '\0';
		if (!strcmp(own, fd->link))
			return set_string(&state->name, entries[i].name, err);
	}
	return refuse_fd(fd, err, "Close it before the dump, or keep the process that needs it outside "
				  "the tree.",
			 "a %s namespace held open that is not the process' own", type);
}

static int namespace_make(struct restore *restore, const image_file *file, const void *in,
			  struct fsnap_error *err)
{
	const image_file_namespace *state = in;
	char path[64];
	for (size_t i = 0; i < ENTRIES; i++) {
		if (strcmp(state->name, entries[i].name))
			continue;
		snprintf(path, sizeof(path), "/proc/self/ns/%s", state->name);
		int own = strcmp(entries[i].type, "time") ? -1 : restore_time_namespace(restore);
		int fd = own >= 0 ? fcntl(own, F_DUPFD_CLOEXEC, 0) : open(path, O_RDONLY | O_CLOEXEC);
		return fd < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: %s", file->id, path) : fd;
	}
	return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u: %s is no namespace", file->id, state->name);
}

const struct file_kind kind_namespace = {
	.name = "namespace",
	.keeps = "the process' own namespaces held open",
	.refuses = "others",
	.shown_by = "device_namespace",
	.xdr = (xdrproc_t)xdr_image_file_namespace,
	.matches = namespace_matches,
	.save = namespace_save,
	.make = namespace_make,
};
