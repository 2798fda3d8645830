/*
 * ports.h - --listen OLD=NEW: ports of the tree's own that are others now, so that a copy can listen beside its
 * original.  NEW 0 is any port that is free; all sockets of OLD get the same one.  Connections between two members
 * of the tree are of the port's, too; what the program says in words (a configuration, an answer) is its own.
 */
#ifndef ENGINE_PORTS_H
#define ENGINE_PORTS_H

#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

struct ports {
	struct moved_port {
		uint16_t old, new;
		int used;
	} *list;
	size_t n;
};

int ports_open(struct ports *ports, const char *const *words, struct fsnap_error *err);
void ports_close(struct ports *ports);

/* "OLD=NEW" lines, of those that the image has. */
void ports_tell(const struct ports *ports, char *text, size_t size);

/* Every OLD must be in the image. */
int ports_check(const struct ports *ports, struct fsnap_error *err);

#endif
