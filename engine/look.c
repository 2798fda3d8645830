/*
 * look.c - what can be had of a process whether or not it runs: found out before
 * the freeze, so that it need not be found out during it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "engine/cgroup.h"
#include "engine/chain/chain.h"
#include "engine/clocks.h"
#include "engine/dump.h"
#include "engine/procfs.h"
#include "engine/seize.h"
#include "engine/time_left.h"
#include "engine/told.h"
#include "engine/trace.h"
#include "engine/voice.h"
#include "store/scope.h"

static const char *const namespace_names[NAMESPACES] = { "mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time" };

/* Our own, by one walk to their directory. What is missing this kernel does not have. */
static int read_own_namespaces(struct dump *dump, struct fsnap_error *err)
{
	if (dump->namespaces[0][0])
		return 0;
	cleanup_fd int dir = open("/proc/self/ns", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "/proc/self/ns");
	for (size_t i = 0; i < NAMESPACES; i++) {
		char *ours = dump->namespaces[i];
		ssize_t n = readlinkat(dir, namespace_names[i], ours, sizeof(dump->namespaces[i]) - 1);
		if (n < 0 && errno != ENOENT)
			return fail(err, FSNAP_E_SYSTEM, errno, "/proc/self/ns/%s", namespace_names[i]);
		ours[n < 0 ? 0 : n] = '\0';
	}
	return 0;
}

/* Namespaces of their own make a container, which is for later; refuse, rather than restore the
 * program into the wrong world. Those of time are made again. */
static int refuse_namespaces(struct dump *dump, const struct process *process, struct fsnap_error *err)
{
	if (read_own_namespaces(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < NAMESPACES; i++) {
		const char *name = namespace_names[i];
		char path[32], theirs[sizeof(dump->namespaces[i])] = "";
		snprintf(path, sizeof(path), "ns/%s", name);
		if (!dump->namespaces[i][0] || readlinkat(process->proc, path, theirs, sizeof(theirs) - 1) < 0)
			continue;
		bool time = strcmp(name, "time") == 0;
		if (time && clocks_allow(dump, process, theirs, dump->namespaces[i], err) < 0)
			return -1;
		if (time || strcmp(theirs, dump->namespaces[i]) == 0)
			continue;
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) has its own %s namespace", process->pid,
		     process->comm, name);
		return error_hint(err, "run fsnap inside it: nsenter -t %d -a fsnap dump ...", process->pid);
	}
	return 0;
}

/* Whatever it was that /proc would not show: the answer is the same. */
static int explain_permission(const struct process *process, struct fsnap_error *err)
{
	if (!err || err->code != FSNAP_E_PERMISSION)
		return -1;
	error_context(err, "process %d (%s)", process->pid, process->comm);
	return error_hint(err, "run fsnap as root or as the owner of the process");
}

static bool uses_async(const struct process *process)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++)
		if (process->mm.vmas.vmas_val[i].kind == VMA_AIO || process->mm.vmas.vmas_val[i].kind == VMA_RING)
			return true;
	return false;
}

/* execve(2) may have come while we looked (setup_new_exec() in fs/exec.c): there was no text yet, or it lay elsewhere. */
static bool has_executed(struct process *process)
{
	return maps_note_program(process, NULL) < 0 || process->executed || !process->mm.start_code;
}

/* What can be had of a process whether or not it runs. */
int look_at_process(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	if (process->image.zombie || process->prepared)
		return 0;
	if (refuse_namespaces(dump, process, err) < 0 || cgroups_refuse_frozen(dump, process, err) < 0 ||
	    mappings_survey(dump, process, err) < 0 || maps_note_program(process, err) < 0 ||
	    maps_collect(dump, process, err) < 0 || mappings_find_text(dump, process, err) < 0)
		return explain_permission(process, err);
	if (uses_async(process) && !dump_async(dump, err))
		return error_context(err, "process %d (%s): asynchronous I/O", process->pid, process->comm);
	if (process->mem >= 0)
		close(process->mem);
	process->mem = openat(process->proc, "mem", O_RDWR | O_CLOEXEC);
	if (process->mem < 0) {
		procfs_failed(process->proc, "mem", err);
		return explain_permission(process, err);
	}
	process->processors = dump->processors ? dump->processors : (dump->processors = get_nprocs());
	process->prepared = process->text.syscall_any || process->text.syscall_ret;
	if (process->prepared && !dump->still) {
		told_open(process);
		time_left_look(dump, process);
	}
	if (process->prepared)
		return 0;
	if (has_executed(process))
		return fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) has executed another program", process->pid,
			    process->comm);
	return fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): no system call instruction in its text",
		    process->pid, process->comm);
}

/* Since then it may have unmapped what we are going to run on, or executed another program: its old
 * memory is then gone, or, behind vfork(2), its parent's. */
void look_doubtfully(struct process *process)
{
	if (!process->prepared)
		return;
	close(process->mem);
	process->mem = openat(process->proc, "mem", O_RDWR | O_CLOEXEC);
	process->prepared = process->mem >= 0 && text_is_there(&process->text, process->mem);
}

static void meet_children(struct dump *dump, struct process *parent)
{
	size_t n, count;
	cleanup_free pid_t *threads = procfs_threads(parent->proc, &n, NULL);
	cleanup_free pid_t *children = threads ? procfs_children(parent->proc, threads, n, &count, NULL) : NULL;
	for (size_t i = 0; children && i < count; i++)
		seize_prepare(&dump->known, children[i], parent->pid, NULL);
}

/* What somebody else's dump does to a process for the moment looks odd, and is not its own. */
static int look_unless_traced(struct dump *dump, struct process *root, struct fsnap_error *err)
{
	enum { LOOKS = 20, NAP_US = 200 };
	struct fsnap_error why = { 0 };
	bool again = true;
	/* It runs: what it unmaps while we look is not there when we come to it. */
	for (int i = 0; i < LOOKS && again; i++) {
		why = (struct fsnap_error){ 0 };
		if (look_at_process(dump, root, &why) == 0)
			return 0;
		/* Has its program gone? Then perhaps there is another one. */
		bool gone = why.code == FSNAP_E_TARGET_DIED ||
			    (why.code == FSNAP_E_PERMISSION && !voice_speaks(root));
		if (gone)
			usleep(NAP_US);
		again = gone ? voice_again(root, NULL) : why.sys == ENOENT;
	}
	cleanup_free char *status = procfs_read_once(root->proc, "status", NULL, NULL);
	long tracer = status ? procfs_status_number(status, "TracerPid") : 0;
	if (tracer <= 0) {
		*err = why;
		return -1;
	}
	return trace_refuse_traced(root->pid, tracer, err);
}

/* Children come and go; but one whose memory does not come will not. */
static int look_at_child(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	int result = 0;
	while (look_at_process(dump, process, NULL) == 0 && (result = streamed_await(dump, process, err)) > 0)
		process->prepared = false;
	if (process->prepared && result == 0) {
		meet_children(dump, process);
		look_at_files(dump, process);
	}
	return result;
}

/* What is found out before the freeze need not be found out during it. Children come and go meanwhile:
 * the tree is what seize_tree() finds, and what fails here is done again there. */
int look_at_tree(struct dump *dump, struct fsnap_error *err)
{
	struct process *root = dump->tree.processes[0];
	int again;
	do {
		root->prepared = false;
		if (look_unless_traced(dump, root, err) < 0 || (again = streamed_await(dump, root, err)) < 0)
			return -1;
	} while (again);
	meet_children(dump, dump->tree.processes[0]);
	look_at_files(dump, dump->tree.processes[0]);
	for (size_t i = 0; i < dump->known.n_processes; i++)
		if (look_at_child(dump, dump->known.processes[i], err) < 0)
			return -1;
	sharing_look(dump);
	return 0;
}

const char *look_for_name(const struct dump *dump, char *buf, size_t size)
{
	if (dump->options->name)
		return dump->options->name;
	struct timespec now;
	struct tm parts;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &parts);
	char time[32];
	strftime(time, sizeof(time), "%Y%m%d-%H%M%S", &parts);
	const struct process *root = dump->tree.processes[0];
	snprintf(buf, size, "%s-%d-%s.%03ld", root->comm, root->pid, time, now.tv_nsec / 1000000);
	/* A name a process gave itself may hold anything. */
	for (char *c = buf; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *c) ||
		    (c == buf && (*c == '.' || *c == '-')))
			*c = '_';
	return buf;
}
