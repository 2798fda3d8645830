/*
 * The table of kinds, and what several of them need.
 */
#include "engine/kinds/kinds.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/ipc/ipc.h"
#include "engine/kinds/carried.h"
#include "engine/kinds/table.h"

/* Order matters: the first that matches takes the descriptor. */
const struct file_kind *const file_kinds[] = {
	&kind_external, &kind_memfd, &kind_pty, &kind_stdio, &kind_device, &kind_pipe, &kind_proc, &kind_regular, &kind_eventfd,
	&kind_epoll, &kind_timerfd, &kind_signalfd,
	&kind_unix, &kind_inet, &kind_netlink, &kind_packet, &kind_tcp,
	&kind_pidfd, &kind_namespace, &kind_userfaultfd, &kind_inotify, &kind_fanotify, &kind_mqueue, &kind_bpf,
	&kind_uring, &kind_tun,
	&kind_unsupported, /* matches everything */
	NULL,
};

const struct other_kind *const other_kinds[] = {
	&kind_sysv_shm, &kind_sysv_sem, &kind_sysv_msg, &kind_aio,
	&kind_seccomp, &kind_scheduling, &kind_cgroups, &kind_clocks,
	NULL,
};

const struct file_kind *file_kind_find(const char *name)
{
	for (const struct file_kind *const *kind = file_kinds; *kind; kind++)
		if (!strcmp((*kind)->name, name))
			return *kind;
	return NULL;
}

const struct process *file_holder(struct dump *dump, const image_file *file, int *fd)
{
	const struct tree *tree = dump_tree(dump);
	for (size_t i = 0; i < tree->n_processes; i++) {
		const struct process *process = tree->processes[i];
		for (unsigned j = 0; j < process->image.fds.fds_len; j++) {
			if (process->image.fds.fds_val[j].file != file->id)
				continue;
			*fd = process->image.fds.fds_val[j].fd;
			return process;
		}
	}
	return NULL;
}

int refuse_file(struct dump *dump, const image_file *file, struct fsnap_error *err, const char *hint,
		const char *what, ...)
{
	char text[256];
	va_list args;
	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);

	int fd = -1;
	const struct process *process = file_holder(dump, file, &fd);
	if (!process)
		return refuse_carried(dump, file, err, hint, text);
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): descriptor %d (%s): %s", process->pid, process->comm, fd,
	     file->label, text);
	return error_hint(err, "%s", hint);
}

int refuse_outside(struct dump *dump, const image_file *file, struct fsnap_error *err, const char *what, ...)
{
	char text[256];
	va_list args;
	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);

	int fd = -1;
	const struct process *process = file_holder(dump, file, &fd);
	refuse_file(dump, file, err, "Dump the process that has the other end, too; or let the program receive this "
				     "one first.", "%s", text);
	if (!process)
		return -1;
	return error_hint(err, "Dump the process that started both ends; or say that this one is to be replaced: "
			       "fsnap dump --external %d:%d=NAME, and hand it in with fsnap restore --external "
			       "NAME=M. A stray one from whoever started the program? Start it with %d>&-",
			  process->pid, fd, fd);
}
