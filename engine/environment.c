/*
 * environment.c - --env NAME=VALUE: variables of the root's environment, changed in its memory.
 *
 * What a program was started with lies in one block on its first stack, whose place the kernel knows
 * (/proc/PID/environ shows it); environ points there until the program sets a variable itself.  A string of the
 * block can be replaced by one that is not longer.  More than that only the program could do: where it has called
 * fsnap_checkpoint(), all variables are handed to it there (mailbox.c).
 *
 * Seen (Debian 12): C programs, dash, Lua, Guile and Node.js find what is there now; Python, Perl, Ruby, PHP, Go and bash
 * have copied it when they started, Java does at its first look.  What such a program starts has, as a rule, its copy.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "engine/mailbox.h"
#include "engine/restore.h"
#include "store/scope.h"

#define BLOCK_MOST (8u << 20) /* more than execve(2) takes */

static bool move(pid_t pid, bool in, uint64_t there, void *here, size_t n)
{
	struct iovec local = { here, n }, remote = { (void *)(uintptr_t)there, n };
	return (in ? process_vm_readv : process_vm_writev)(pid, &local, 1, &remote, 1, 0) == (ssize_t)n;
}

static int not_possible(const char *word, const char *why, struct fsnap_error *err)
{
	fail(err, FSNAP_E_USAGE, 0, "--env %s: %s", word, why);
	return error_hint(err, "only a program that calls fsnap_checkpoint() can be given other variables, or longer "
			       "values, than it was started with");
}

static int replace(char *block, size_t size, const char *word, struct fsnap_error *err)
{
	size_t name = strcspn(word, "="), wanted = strlen(word);
	if (!word[name] || name == 0) {
		fail(err, FSNAP_E_USAGE, 0, "--env %s: not a variable with a value", word);
		return error_hint(err, "say --env NAME=VALUE");
	}
	for (char *at = block; at < block + size; at += strlen(at) + 1) {
		size_t length = strlen(at);
		if (strncmp(at, word, name + 1) != 0)
			continue;
		if (wanted > length)
			return not_possible(word, "its value was shorter when the program was started", err);
		memset(at, 0, length);
		memcpy(at, word, wanted);
		return 0;
	}
	return not_possible(word, "the program was not started with this variable", err);
}

int environment_change(struct restore *restore, struct fsnap_error *err)
{
	const char *const *words = restore->options->env;
	const image_process *root = &restore->model.processes[0];
	int told;
	if (mailbox_tell_copy(restore, &told, err) < 0)
		return -1;
	if (told || !words || !words[0])
		return 0;
	const image_mm *mm = model_mm(&restore->model, root->mm);
	size_t size = mm->env_end - mm->env_start;
	pid_t pid = restore->tracees.processes[0]->live;
	cleanup_free char *block = size && size < BLOCK_MOST ? calloc(size + 1, 1) : NULL;
	if (!block || !move(pid, true, mm->env_start, block, size))
		return not_possible(words[0], "the environment that the program was started with is not there any more",
				    err);
	for (size_t i = 0; words[i]; i++)
		if (replace(block, size, words[i], err) < 0)
			return -1;
	if (!move(pid, false, mm->env_start, block, size))
		return not_possible(words[0], "the environment cannot be written", err);
	/* Where a program looks for its variables is its own affair; nothing in it tells. */
	restore_note(restore, "--env changes variables where the program was started with them (/proc/PID/environ); it has no "
			      "effect on copies: Python, Perl, Ruby, PHP, Go and bash make one when they start");
	return 0;
}
