/*
 * Descriptors under way: what a message has that waits in a Unix socket (SCM_RIGHTS).
 *
 * A restore sends messages again before there is any process of the tree: they must be in the queue when the
 * program first looks.  So a message can have what the restoring process makes by itself; what a process of the
 * tree must make, or finish, is a stand-in, or unfinished, at that time, and nobody would mend what is in a
 * message already.
 */
#include "engine/kinds/carried.h"

#include <fcntl.h>

#include "engine/kinds/locks.h"
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

/* What a process that has it does to it after a restore; NULL: nothing. */
static const char *left_to_holders(const struct file_kind *kind, const image_file *file, const void *state)
{
	if (locks_have_lease(file))
		return "a lease on it";
	if (file->owner || file->signo || (file->flags & O_ASYNC))
		return "an owner of its signals (F_SETOWN, F_SETSIG, O_ASYNC)";
	return kind->unsettled && kind->unsettled(state) ? "a lock on the terminal (TIOCSPTLCK, TIOCEXCL)" : NULL;
}

int carried_check(struct dump *dump, const image_file *file, const void *state, struct fsnap_error *err)
{
	static const char hint[] = "Let the program receive the message before the dump.";
	const struct file_kind *kind = file_kind_find(file->kind);
	int fd;
	if (!dump_carrier(dump, file, &fd))
		return 0;
	if (kind->is_late && kind->is_late(state))
		return refuse_carried(dump, file, err, hint, "only a process of the tree can make it anew, and "
							     "messages are sent again before there is one");
	const char *what = left_to_holders(kind, file, state);
	if (!what || file_holder(dump, file, &fd))
		return 0;
	return refuse_file(dump, file, err, hint, "%s, which a process must set that has it: but only the message "
						  "has it", what);
}
