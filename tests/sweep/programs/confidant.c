/*
 * confidant.c DIR - holds what nobody is to read, in memory that it writes and in the name of a file that it has open.
 * When DIR/ready exists it does; it waits until it is killed. It is small, so that space which its image leaves is taken
 * for the next one whatever the size of that.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char kept[1500000];

/* Put together here, so that the program's file, which nobody encrypts, has neither. */
static const char *const page[] = { "what nobody", " is to read; " }, *const name[] = { "whose name nobody", " is to know" };

int main(int argc, char **argv)
{
	char path[PATH_MAX], sentence[64];
	if (argc != 2)
		return 2;
	int length = snprintf(sentence, sizeof(sentence), "%s%s", page[0], page[1]);
	for (size_t at = 0; at + (size_t)length < sizeof(kept); at += (size_t)length)
		memcpy(kept + at, sentence, (size_t)length);
	snprintf(path, sizeof(path), "%s/%s%s", argv[1], name[0], name[1]);
	if (open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0)
		return 1;
	snprintf(path, sizeof(path), "%s/ready", argv[1]);
	if (close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) < 0)
		return 1;
	for (;;)
		pause();
}
