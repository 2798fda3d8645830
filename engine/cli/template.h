/*
 * template.h - how `fsnap template` talks to the process that holds one (template_host.c).
 *
 * It listens at a socket in the store, templates/NAME. A client says one request, with its streams and its directory,
 * and hears: for copies as many answers as there are, or one with an error; for a copy it waits for, at last how it
 * ended. Both ends are of one build (the answer begins with its version).
 */
#ifndef CLI_TEMPLATE_H
#define CLI_TEMPLATE_H

#include "engine/cli/cli.h"

enum template_verb { TEMPLATE_COPY = 1, TEMPLATE_ASK, TEMPLATE_STOP };
enum {
	TEMPLATE_OWN = 4,     /* 0, 1, 2 and the working directory; behind them those of --fd and --external, in this order */
	TEMPLATE_HANDED = 60, /* of these, at most */
	TEMPLATE_FDS = TEMPLATE_OWN + TEMPLATE_HANDED,
};
#define TEMPLATE_REQUEST 65536u /* bytes, at most */

struct template_request {
	uint32_t verb, n_words;
	char words[]; /* of the command line, each ended by NUL */
};

struct template_facts {
	char name[FSNAP_NAME_MAX + 1], image[FSNAP_NAME_MAX + 1];
	pid_t pid;
	uint64_t bytes;	 /* of memory that copies share */
	uint64_t copies; /* made */
	uint64_t running; /* of them */
};

struct template_answer {
	char version[16];
	int result;    /* 0; -1: err */
	unsigned left; /* answers behind this one */
	uint64_t total_us;
	struct template_facts facts;
	struct fsnap_restore_report report;
	struct fsnap_error err;
};

/* The last word about a copy that is waited for: a status as of waitpid(2). */
struct template_end {
	int status;
};

/* --- template_line.c --------------------------------------------------------------------- */

/* The directory of these sockets; -1: there is none, and it was not to be made. */
int template_place(const char *store, bool make, struct fsnap_error *err);

/* Whoever holds `name`; -1 with ENOENT or ECONNREFUSED in errno: nobody (any more); with EAGAIN: it takes no calls. */
int template_connect(int place, const char *name);
int template_listen(int place, const char *name, struct fsnap_error *err);

bool template_send(int line, const void *bytes, size_t size, const int *fds, unsigned n_fds);
/* Returns how many bytes came, 0 at the end, -1; fds: TEMPLATE_FDS of them, -1 where none came. */
ssize_t template_receive(int line, void *bytes, size_t room, int *fds);

/* --- template_ask.c ---------------------------------------------------------------------- */

/* The store that the command line says. */
int template_store(const struct cli *cli, char *dir, size_t size, struct fsnap_error *err);
/* A line to who holds `name`; -1. */
int template_reach(const struct cli *cli, const char *name, struct fsnap_error *err);
/* Removes the name that one who was killed has left; false: it is none. */
bool template_forget(int place, const char *name);
bool template_ask(int line, enum template_verb verb, int argc, char **argv, const int *handed, unsigned n_handed);
/* Its answer to that. -1: there was none, which says who should have given it, or it was an error. */
int template_hear(int line, enum template_verb verb, struct template_answer *told, struct fsnap_error *err);

/* --- template_host.c ----------------------------------------------------------------------- */

/* Starts a process that holds the image (NULL: the newest), called `name` (NULL: as the image); what it says of itself. */
int template_start(const char *store, const char *image, const char *name, struct template_answer *answer,
		   struct fsnap_error *err);

#endif
