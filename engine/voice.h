/*
 * voice.h - who speaks for a process: the thread through which its memory and descriptors are asked for.
 *
 * That is its main thread, unless it has called pthread_exit(3) while others go on. While another thread executes a
 * program it looks the same: the main thread is killed, and the other one takes its number (de_thread() in fs/exec.c). What
 * was found out through either is then nobody's.
 */
#ifndef ENGINE_VOICE_H
#define ENGINE_VOICE_H

#include "engine/procfs.h"
#include "engine/tree.h"

/* What /proc/PID/stat says of its main thread. */
void voice_note(struct process *process, const struct procfs_stat *stat);

/* A main thread that is a zombie by this may have ended alone: then another one speaks. A stopped one does, if there is any. */
int voice_check(struct process *process, struct fsnap_error *err);

/* Does it still have what was to be asked for through it? Who has not is refused like a stranger. */
bool voice_speaks(const struct process *process);

/* The thread that was asked is not there any more. False: neither is the process, and if it is a zombie that is noted.
 * True: here is another voice, and all that was found out before is forgotten, but for tasks: none may be held. */
bool voice_again(struct process *process, struct fsnap_error *err);

#endif
