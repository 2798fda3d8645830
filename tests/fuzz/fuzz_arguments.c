/*
 * fuzz_arguments.c - any words as a command line.
 *
 * Shown: what is not understood is refused with words and a hint, nothing is read beyond a word or the
 * last of them. The input is the words, each ended by a newline.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cli/cli.h"
#include "fuzz.h"

#define WORDS 64

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	char *text = malloc(length + 1), *argv[WORDS + 2] = { "fsnap" }, *rest = text;
	int argc = 1;
	memcpy(text, bytes, length);
	text[length] = '\0';
	for (char *word; argc <= WORDS && (word = strsep(&rest, "\n"));)
		argv[argc++] = word;
	optind = 0; /* getopt_long(3): begin anew */
	struct cli cli = { 0 };
	struct fsnap_error err = { 0 };
	if (options_parse(argc, argv, &cli, &err) < 0 && (err.code == 0 || !err.message[0]))
		abort();
	free(cli.maps);
	free(cli.fds);
	free(cli.externals);
	free(cli.allows);
	free(cli.denies);
	free(cli.withs);
	free(cli.listens);
	free(cli.envs);
	free(text);
	return 0;
}
