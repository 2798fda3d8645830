#include "engine/notes.h"

#include <stdio.h>
#include <string.h>

void notes_add(char *notes, size_t size, const char *format, va_list args)
{
	char line[256];
	vsnprintf(line, sizeof(line), format, args);
	size_t used = strlen(notes);
	if (!strstr(notes, line))
		snprintf(notes + used, size - used, "%s\n", line);
}
