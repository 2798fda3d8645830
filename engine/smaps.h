/*
 * smaps.h - what was said about the mappings of a process, and what it holds: two ways to find out. Both leave it in
 * process->advice, dirty and shares.
 */
#ifndef ENGINE_SMAPS_H
#define ENGINE_SMAPS_H

#include "bpf/flags.h"
#include "engine/tree.h"

/* From /proc/PID/smaps: all of it, of every process; 13 ms per GiB. */
int smaps_survey(struct process *process, struct fsnap_error *err);

/* vm_flags.c: by the kernel's own flags; 1: they are not all of it. `bytes`: anonymous memory it holds. */
int vm_flags_survey(struct flags_reader *reader, struct process *process, uint64_t bytes, struct fsnap_error *err);

/* vm_flags.c: what has changed of process->advice since, of mappings whose borders have not: flags and keys, not marks. */
void vm_flags_renew(struct flags_reader *reader, struct process *process);

/* All that smaps_note_bits() may add. */
unsigned smaps_known_advice(void);

/* Adds what the kernel's flags of a mapping mean: those that are the same in all kernels, below bit 32. */
void smaps_note_bits(uint64_t bits, struct advice *advice);

#endif
