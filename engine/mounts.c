#include "engine/mounts.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "engine/procfs.h"

char *mounts_read(struct fsnap_error *err)
{
	return procfs_read(AT_FDCWD, "/proc/self/mountinfo", NULL, err);
}

static bool is_octal(const char *digits)
{
	for (int i = 0; i < 3; i++)
		if (digits[i] < '0' || digits[i] > '7')
			return false;
	return true;
}

/* mangle_path() in fs/seq_file.c: three digits for each byte that would be taken for the end of a field. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from; to++) {
		if (*from != '\\' || !is_octal(from + 1)) {
			*to = *from++;
			continue;
		}
		*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
		from += 4;
	}
	*to = '\0';
}

enum { ID, PARENT, DEVICE, ROOT, POINT, OPTIONS, BEFORE };
enum { TYPE, SOURCE, SUPER_OPTIONS, BEHIND };

static bool fields(char *text, char **found, int n)
{
	for (int i = 0; i < n; i++) {
		found[i] = strsep(&text, " ");
		if (!found[i])
			return false;
		unescape(found[i]);
	}
	return true;
}

/* ID parent device root point options [optional...] - type source super-options. A blank within a field is an
 * escape, so that the dash is found. */
static bool parse(char *text, struct mounts_line *line)
{
	char *left[BEFORE], *right[BEHIND], *dash = strstr(text, " - ");
	if (!dash)
		return false;
	*dash = '\0';
	if (!fields(text, left, BEFORE) || !fields(dash + 3, right, BEHIND) ||
	    sscanf(left[ID], "%u", &line->id) != 1 ||
	    sscanf(left[DEVICE], "%u:%u", &line->major, &line->minor) != 2)
		return false;
	line->root = left[ROOT];
	line->point = left[POINT];
	line->type = right[TYPE];
	line->source = right[SOURCE];
	line->super_options = right[SUPER_OPTIONS];
	return true;
}

int mounts_next(char **cursor, struct mounts_line *line)
{
	for (char *text; *cursor && (text = strsep(cursor, "\n"));)
		if (parse(text, line))
			return 1;
	return 0;
}

uint64_t mounts_device(const struct mounts_line *line)
{
	return (uint64_t)line->major << 20 | line->minor;
}
