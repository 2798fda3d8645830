/*
 * library.c - what libfsnap knows without looking at a process or an image.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/fsnap.h"
#include "store/error.h"

const char *fsnap_version(void)
{
	return FSNAP_VERSION;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

/* The directory named by $XDG_DATA_HOME; relative ones are to be ignored, says its specification. */
static const char *data_home(void)
{
	const char *dir = environment("XDG_DATA_HOME");

	return dir && dir[0] == '/' ? dir : NULL;
}

int fsnap_default_store(char *buf, size_t size, struct fsnap_error *err)
{
	const char *dir, *below = "";

	if (!(dir = environment("FSNAP_STORE"))) {
		if (geteuid() == 0)
			dir = "/var/lib/fsnap";
		else if ((dir = data_home()))
			below = "/fsnap";
		else if ((dir = environment("HOME")))
			below = "/.local/share/fsnap";
	}
	if (!dir) {
		fail(err, FSNAP_E_STORE_MISSING, 0, "no store is named and $HOME is not set");
		return error_hint(err, "name one with FSNAP_STORE=DIR");
	}
	if ((size_t)snprintf(buf, size, "%s%s", dir, below) >= size)
		return fail(err, FSNAP_E_STORE_MISSING, ENAMETOOLONG, "store %s%s", dir, below);
	return 0;
}
