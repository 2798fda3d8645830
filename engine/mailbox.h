/*
 * mailbox.h - how a program that calls fsnap_checkpoint() is told what became of it.
 *
 * A process cannot dump itself: ptrace(2) takes somebody else.  So the library starts the fsnap command, which
 * leaves the tree (its parent ends at once) and dumps it.  Nothing connects the two, as that would be an end held
 * outside the tree, but a piece of the program's memory, the mailbox.  The image names its address: a restore writes
 * into every copy's, before the copy runs, that it is one.
 *
 *	program		WAITING, starts the command, sleeps on `word`
 *	the command	dumps it, then writes `told`, last ORIGINAL or FAILED
 *	a restore	COPY, with number, message and variables
 */
#ifndef ENGINE_MAILBOX_H
#define ENGINE_MAILBOX_H

#include <stdint.h>
#include <sys/types.h>

#include "engine/fsnap.h"

#define MAILBOX_MAGIC 0x31786f626c69616dull /* "mailbox1" */
#define MAILBOX_SIZE (1u << 20)

enum mailbox_word { MAILBOX_WAITING, MAILBOX_ORIGINAL, MAILBOX_FAILED, MAILBOX_COPY };

struct mailbox {
	uint64_t magic;	  /* program */
	uint32_t word;	  /* enum mailbox_word; program, then command or restore */
	uint32_t copy;	  /* restore */
	uint32_t message_length, variables_length; /* restore */
	pid_t command;	  /* command, first of all: who it is */
	struct { /* command */
		struct fsnap_error err;
		struct fsnap_dump_report report;
	} told;
	char bytes[]; /* restore: message, NUL; variables, each ended by NUL */
};

struct restore;

/* The command: it is at work; what came of the dump. */
void mailbox_announce(pid_t pid, uint64_t at);
void mailbox_answer(pid_t pid, uint64_t at, int result, const struct fsnap_dump_report *report,
		    const struct fsnap_error *err);

/* Restore, everybody is traced: this is a copy. *has: there is a mailbox. */
int mailbox_tell_copy(struct restore *restore, int *has, struct fsnap_error *err);

#endif
