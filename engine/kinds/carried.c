/*
 * Descriptors under way: what a message has that waits in a Unix socket (SCM_RIGHTS).
 *
 * A restore sends messages again before there is any process of the tree, and those that have what needs one (a
 * pidfd) when everybody is born and nobody runs yet.  So a message can have what the restoring process makes by
 * itself at one of these times; what a process of the tree must make is refused.
 */
#include "engine/kinds/carried.h"

#include "engine/kinds/table.h"

const struct fd_view *carrier_outermost(const struct fd_view *carrier)
{
	while (carrier->carrier)
		carrier = carrier->carrier;
	return carrier;
}

int refuse_carried(struct dump *dump, const image_file *file, struct fsnap_error *err, const char *hint,
		   const char *what)
{
	int fd = -1;
	image_file *socket = NULL;
	const struct process *process = dump_carrier(dump, file, &fd);
	if (process)
		dump_file_by_id(dump, dump_file_of_fd(dump, process, fd), &socket);
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): under way in descriptor %d (%s): %s: %s",
	     process ? process->pid : 0, process ? process->comm : "?", fd, socket ? socket->label : "?", file->label,
	     what);
	return error_hint(err, "%s", hint);
}

int carried_check(struct dump *dump, const image_file *file, const void *state, struct fsnap_error *err)
{
	const struct file_kind *kind = file_kind_find(file->kind);
	int fd;
	if (!dump_carrier(dump, file, &fd) || !kind->is_late || !kind->is_late(state) || kind->make_late)
		return 0;
	return refuse_carried(dump, file, err, "Let the program receive the message before the dump.",
			      "only the process whose memory it is about can make it anew");
}
