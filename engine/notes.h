/*
 * notes.h - the lines of a report that say what will be, or was, different.
 */
#ifndef ENGINE_NOTES_H
#define ENGINE_NOTES_H

#include <stdarg.h>
#include <stddef.h>

/* Adds a line to the text in notes[size], unless it is there already; what does not fit is cut off. */
void notes_add(char *notes, size_t size, const char *format, va_list args)
	__attribute__((format(printf, 3, 0)));

#endif
