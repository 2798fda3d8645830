/*
 * pty_session.c - sessions take their terminals, and the group in the foreground, in their plans.
 */
#include <asm/ioctls.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "engine/kinds/pty.h"
#include "engine/kinds/table.h"

static const image_file_pty *terminal_of(struct restore *restore, pid_t session, const image_file **file)
{
	const image_file_pty *state;
	for (size_t i = 0; (state = restore_file_state(restore, kind_pty.name, i, file)); i++)
		if (state->side == PTY_MASTER && state->session == session)
			return state;
	return NULL;
}

bool terminals_of(struct restore *restore, pid_t session)
{
	const image_file *file;
	return terminal_of(restore, session, &file);
}

void terminals_take(struct restore *restore, pid_t session, struct plans *plans, uint32_t task)
{
	const image_file *file;
	const image_file_pty *state = terminal_of(restore, session, &file);
	if (!state)
		return;
	plan_note(plans, "the session's terminal (%s)", state->path);
	plan_call(plans, task, SYS_ioctl, IMM(restore_fd(restore, file->id)), IMM(TIOCGPTPEER),
		  IMM(O_RDWR | O_NOCTTY | O_CLOEXEC));
	uint32_t peer = plan_result(plans);
	plan_call(plans, task, SYS_ioctl, SLOT(peer), IMM(TIOCSCTTY), IMM(0));
	plan_call(plans, task, SYS_close, SLOT(peer));
}

void terminals_foreground(struct restore *restore, pid_t session, struct plans *plans, uint32_t task)
{
	const image_file *file;
	const image_file_pty *state = terminal_of(restore, session, &file);
	if (!state || !state->foreground)
		return;
	plan_note(plans, "the group in the foreground");
	plan_call(plans, task, SYS_ioctl, IMM(restore_fd(restore, file->id)), IMM(TIOCGPTPEER),
		  IMM(O_RDWR | O_NOCTTY | O_CLOEXEC));
	uint32_t peer = plan_result(plans);
	uint32_t group = plans_data(plans, &state->foreground, sizeof(state->foreground), 4);
	plan_number_into(plans, task, DATA(group), state->foreground);
	plan_call(plans, task, SYS_ioctl, SLOT(peer), IMM(TIOCSPGRP), DATA(group));
	plan_accept_any(plans); /* all of it may have ended */
	plan_call(plans, task, SYS_close, SLOT(peer));
}
