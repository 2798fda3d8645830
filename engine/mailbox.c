#include "engine/mailbox.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/restore.h"
#include "store/scope.h"

static bool put(pid_t pid, uint64_t at, const void *bytes, size_t n)
{
	struct iovec here = { (void *)bytes, n }, there = { (void *)(uintptr_t)at, n };
	return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)n;
}

static bool is_there(pid_t pid, uint64_t at)
{
	uint64_t magic;
	struct iovec here = { &magic, sizeof(magic) }, there = { (void *)(uintptr_t)at, sizeof(magic) };
	return process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof(magic) && magic == MAILBOX_MAGIC;
}

/* The word last: the program may run meanwhile, and goes on as soon as it has changed. */
static bool say(pid_t pid, uint64_t at, uint32_t word)
{
	return put(pid, at + offsetof(struct mailbox, word), &word, sizeof(word));
}

void mailbox_announce(pid_t pid, uint64_t at)
{
	pid_t self = getpid();
	if (is_there(pid, at))
		put(pid, at + offsetof(struct mailbox, command), &self, sizeof(self));
}

void mailbox_answer(pid_t pid, uint64_t at, int result, const struct fsnap_dump_report *report,
		    const struct fsnap_error *err)
{
	if (!is_there(pid, at) || !put(pid, at + offsetof(struct mailbox, told.err), err, sizeof(*err)) ||
	    !put(pid, at + offsetof(struct mailbox, told.report), report, sizeof(*report)))
		return;
	say(pid, at, result == 0 ? MAILBOX_ORIGINAL : MAILBOX_FAILED);
}

static size_t variables_size(const char *const *env)
{
	size_t size = 0;
	for (size_t i = 0; env && env[i]; i++)
		size += strlen(env[i]) + 1;
	return size;
}

int mailbox_tell_copy(struct restore *restore, int *has, struct fsnap_error *err)
{
	const struct fsnap_restore_options *options = restore->options;
	pid_t pid = restore->tracees.processes[0]->live;
	uint64_t at = restore->model.tree.mailbox;
	*has = at && is_there(pid, at);
	if (!*has && options->message_length) {
		fail(err, FSNAP_E_USAGE, 0, "the image was not made by fsnap_checkpoint(): nobody in it waits for a "
					    "message");
		return error_hint(err, "call fsnap_checkpoint() in the program, or leave out --message");
	}
	if (!*has)
		return 0;
	size_t variables = variables_size(options->env);
	size_t room = MAILBOX_SIZE - sizeof(struct mailbox) - 1;
	if (options->message_length > room || variables > room - options->message_length) {
		fail(err, FSNAP_E_USAGE, 0, "%zu bytes of message and variables are more than a copy can be told",
		     options->message_length + variables);
		return error_hint(err, "put it into a file, and tell its name");
	}
	size_t size = sizeof(struct mailbox) + options->message_length + 1 + variables;
	cleanup_free struct mailbox *mailbox = calloc(1, size);
	if (!mailbox)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a message");
	*mailbox = (struct mailbox){ .magic = MAILBOX_MAGIC, .word = MAILBOX_COPY, .copy = options->copy,
				     .message_length = (uint32_t)options->message_length,
				     .variables_length = (uint32_t)variables };
	snprintf(mailbox->told.report.image, sizeof(mailbox->told.report.image), "%s", restore->report->image);
	if (options->message_length)
		memcpy(mailbox->bytes, options->message, options->message_length);
	char *to = mailbox->bytes + options->message_length + 1;
	for (size_t i = 0; options->env && options->env[i]; i++)
		to = stpcpy(to, options->env[i]) + 1;
	return put(pid, at, mailbox, size) ? 0 : fail(err, FSNAP_E_SYSTEM, errno, "telling the program that it is a copy");
}
