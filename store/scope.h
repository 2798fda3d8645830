/*
 * scope.h - free by scope, hand over with an explicit steal.
 *
 *	cleanup_fd int fd = open(...);
 *	...
 *	return steal_fd(&fd);		// the caller owns it now
 */
#ifndef STORE_SCOPE_H
#define STORE_SCOPE_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void scope_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void scope_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void scope_fclose(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void scope_closedir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

#define cleanup_fd __attribute__((cleanup(scope_close)))
#define cleanup_free __attribute__((cleanup(scope_free)))
#define cleanup_file __attribute__((cleanup(scope_fclose)))
#define cleanup_dir __attribute__((cleanup(scope_closedir)))

/* Ends a stream of open_memstream(3); false: something is missing in *text for want of memory, of which glibc's last
 * fclose(3) says nothing where it could not even begin. */
static inline bool scope_end_text(FILE *stream, char *const *text)
{
	bool whole = !ferror(stream);
	return fclose(stream) == 0 && whole && *text;
}

static inline int steal_fd(int *fd)
{
	int stolen = *fd;
	*fd = -1;
	return stolen;
}

#define steal(pointer)                            \
	({                                        \
		__typeof__(*(pointer)) stolen = *(pointer); \
		*(pointer) = NULL;                \
		stolen;                           \
	})

#endif
