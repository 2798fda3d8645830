/*
 * main.c - the fsnap command.
 *
 * A small tree is saved in less than three milliseconds, so starting up counts:
 * no locale, no buffers, no file is touched before it is needed.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cli/cli.h"

static int run(struct cli *cli, struct fsnap_error *err)
{
	if (cli->version) {
		printf(cli->json ? "{\"version\":\"%s\"}\n" : "fsnap %s\n", fsnap_version());
		return EXIT_SUCCESS;
	}
	if (cli->help && cli->command)
		help_command(stdout, cli->command);
	else if (cli->help)
		help_overview(stdout);
	else
		return keys_prepare(cli, err) ? -1 : cli->command->run(cli, err);
	return EXIT_SUCCESS;
}

/* A standard stream that is closed would be the number of the next file that is opened: an image, into which a message is
 * written then. What takes its place cannot be read or written either (open(2), O_PATH). */
static void keep_numbers(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/", O_PATH | O_CLOEXEC);
}

int main(int argc, char **argv)
{
	struct cli cli = { 0 };
	struct fsnap_error err = { 0 };

	keep_numbers();
	signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes (ulimit -f) is an error to be told, not our death */
	int status = options_parse(argc, argv, &cli, &err) ? -1 : run(&cli, &err);

	if (status < 0 && err.code == FSNAP_E_USAGE && !err.hint[0])
		error_hint(&err, "fsnap %s%s--help", cli.command ? cli.command->name : "",
			   cli.command ? " " : "");
	if (status < 0)
		status = output_error(&cli, &err);
	options_free(&cli);
	/* A result nobody could read is no success: a full disk, a closed pipe. */
	if ((fflush(stdout) || ferror(stdout)) && status == EXIT_SUCCESS) {
		fprintf(stderr, "fsnap: standard output: %s\n", strerror(errno));
		status = EXIT_GENERAL;
	}
	return status;
}
