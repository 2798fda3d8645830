/*
 * doctor.h - what is checked about this machine, and how a check says what it found.
 */
#ifndef DOCTOR_DOCTOR_H
#define DOCTOR_DOCTOR_H

#include <stdbool.h>
#include <sys/types.h>

#include "engine/fsnap.h"

struct finding {
	int state; /* enum fsnap_check_state */
	char found[256];
	char remedy[256]; /* in place of the check's own, if a check knows better; else "" */
};

struct check {
	const char *group, *name;
	void (*probe)(struct finding *finding, const char *store);
	bool apart; /* in a child, as it changes the process that tries it, or traces */
	const char *costs;  /* if it is not there */
	const char *remedy; /* how to get it */
};

/* Each ended by one without a name. */
extern const struct check checks_of_processes[], checks_of_memory[], checks_of_restoring[], checks_of_network[],
	checks_of_machine[];

/* What a probe found; the last one counts. */
void find(struct finding *finding, int state, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* It worked, or it did not and errno says why. `state` is what that is called. */
void find_result(struct finding *finding, bool worked, int state);

/* --- subject.c ----------------------------------------------------------------------- */

/* A child that first calls setup() (may be NULL), then sleeps until subject_end() or our death. Tells nobody by a
 * signal when it ends. -1 with errno: it could not be made. */
pid_t subject_start(void (*setup)(void));
void subject_end(pid_t pid);

/* Runs work(arg) in a child and waits for it; memory is not shared, but for what is mapped so. false: it died. */
bool subject_run(void (*work)(void *arg), void *arg);

/* --- what several files ask ------------------------------------------------------------ */

bool has_capability(unsigned number);
/* The number a file of /proc or /sys begins with; -1: there is none. */
long long number_in(const char *path);
/* Its first line, without the end of it; "" where there is none. */
const char *line_in(const char *path, char *line, size_t size);

#endif
