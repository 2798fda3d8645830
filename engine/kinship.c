/*
 * kinship.c - whose session and group every process is in, seen at a dump: whether the leaders still
 * live, and whether a restore could make the tree again.
 */
#include <stdlib.h>

#include "engine/dump.h"
#include "engine/family.h"
#include "engine/procfs.h"
#include "store/scope.h"

/* Its number cannot have gone to another while its session or group has members. */
static bool has_ended(struct dump *dump, int leader)
{
	if (leader <= 0 || tree_find(&dump->tree, leader))
		return false;
	cleanup_fd int proc = procfs_open(leader, NULL);
	return proc < 0;
}

/* Neighbours are in the same session, as a rule. */
static void note_leaders(struct dump *dump)
{
	int sid = 0, pgid = 0;
	bool session_lost = false, group_lost = false;
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		image_process *image = &dump->tree.processes[i]->image;
		if (image->sid != sid)
			session_lost = has_ended(dump, sid = image->sid);
		if (image->pgid != pgid)
			group_lost = has_ended(dump, pgid = image->pgid);
		image->session_lost = session_lost;
		image->group_lost = group_lost;
		if (image->sid != dump->tree.processes[0]->image.sid && pgid && !group_lost &&
		    !tree_find(&dump->tree, pgid))
			dump_note(dump, "process %d is in the process group of %d, which is outside the tree; "
				  "it will come back in that of its session", dump->tree.processes[i]->pid, pgid);
	}
}

/* In the order in which the kernel lists them. */
static void note_children(struct tree *tree)
{
	for (size_t i = tree->n_processes; i-- > 1;) {
		struct process *child = tree->processes[i], *parent = tree_find(tree, child->ppid);
		child->next_sibling = parent->first_child;
		parent->first_child = child;
	}
}

int kinship_collect(struct dump *dump, struct fsnap_error *err)
{
	struct tree *tree = &dump->tree;
	struct family family = { .kin = calloc(tree->n_processes, sizeof(struct kin)), .n = tree->n_processes };
	if (!family.kin)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the family of processes");
	note_leaders(dump);
	note_children(tree);
	for (size_t i = 0; i < tree->n_processes; i++) {
		const struct process *process = tree->processes[i];
		const image_process *image = &process->image;
		family.kin[i] = (struct kin){ .pid = process->pid, .ppid = process->ppid, .pgid = image->pgid,
					      .sid = image->sid, .zombie = image->zombie,
					      .exit_signal = i ? image->exit_signal : SIGCHLD,
					      .session_lost = image->session_lost,
					      .group_lost = image->group_lost };
	}
	int result = family_plan(&family, err);
	family_free(&family);
	return result;
}
