/*
 * origin.h - what `fsnap run` has made an image from, and whether it would do the same now.
 *
 * It is kept in the image as labels (fsnap_dump_options.labels), named "run.*". What counts: the command and its
 * arguments, the working directory, what says that it is ready, --with, whether it is encrypted, variables and files
 * that the user has named (--env, --depends), and the command's file, if that is a script. (Of a program's and its
 * libraries' files the image itself knows what they were.)
 */
#ifndef CLI_ORIGIN_H
#define CLI_ORIGIN_H

#include "engine/cli/cli.h"

struct image;

struct origin {
	char **labels; /* NULL-ended */
	size_t n;
};

int origin_describe(struct origin *origin, const struct cli *cli, struct fsnap_error *err);
void origin_free(struct origin *origin);
#define cleanup_origin __attribute__((cleanup(origin_free)))

/* Which of the program's standard streams still are the ones it was given by this process: what later starts replace. */
int origin_add_streams(struct origin *origin, pid_t program, struct fsnap_error *err);

struct origin_found {
	bool made_by_run;
	bool streams[3];
	char differs[512]; /* what is not as it was: a sentence; "": nothing */
};
int origin_compare(const struct origin *now, const struct image *image, struct origin_found *found,
		   struct fsnap_error *err);

/* --- run_cold.c: the command is started, and saved when it is ready. The exit status is its own, or -1. --- */

int run_cold(const struct cli *cli, struct origin *origin, struct fsnap_error *err);

#endif
