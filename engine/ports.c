#include "engine/ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/restore.h"
#include "store/scope.h"

static int bad(const char *word, struct fsnap_error *err)
{
	fail(err, FSNAP_E_USAGE, 0, "--listen %s: not two port numbers", word);
	return error_hint(err, "say --listen OLD=NEW, like --listen 6379=6380; 0 is any port that is free");
}

static int number(const char **at, long least)
{
	char *end;
	long value = strtol(*at, &end, 10);
	if (end == *at || value < least || value > 65535)
		return -1;
	*at = end;
	return (int)value;
}

/* A port that nobody of either family and protocol has now. It is free for the taking until ours do. */
static int free_port(struct fsnap_error *err)
{
	for (int tries = 0; tries < 100; tries++) {
		struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
		struct sockaddr_in any4 = { .sin_family = AF_INET };
		socklen_t size = sizeof(any), size4 = sizeof(any4);
		cleanup_fd int tcp = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool six = tcp >= 0 && bind(tcp, (struct sockaddr *)&any, size) == 0 &&
			   getsockname(tcp, (struct sockaddr *)&any, &size) == 0;
		cleanup_fd int tcp4 = six ? -1 : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (!six && (bind(tcp4, (struct sockaddr *)&any4, size4) < 0 ||
			     getsockname(tcp4, (struct sockaddr *)&any4, &size4) < 0))
			continue;
		any4.sin_port = six ? any.sin6_port : any4.sin_port;
		cleanup_fd int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (bind(udp, (struct sockaddr *)&any4, size4) == 0)
			return ntohs(any4.sin_port);
	}
	return fail(err, FSNAP_E_ADDRESS_TAKEN, 0, "no port is free");
}

int ports_open(struct ports *ports, const char *const *words, struct fsnap_error *err)
{
	size_t n = 0;
	while (words && words[n])
		n++;
	ports->list = calloc(n + 1, sizeof(*ports->list));
	if (!ports->list)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--listen");
	for (size_t i = 0; i < n; i++) {
		const char *at = words[i];
		int old = number(&at, 1), new = *at++ == '=' ? number(&at, 0) : -1;
		if (old < 0 || new < 0 || *at)
			return bad(words[i], err);
		if (new == 0 && (new = free_port(err)) < 0)
			return -1;
		ports->list[ports->n++] = (struct moved_port){ (uint16_t)old, (uint16_t)new, 0 };
	}
	return 0;
}

void ports_close(struct ports *ports)
{
	free(ports->list);
	*ports = (struct ports){ 0 };
}

void ports_tell(const struct ports *ports, char *text, size_t size)
{
	size_t used = 0;
	text[0] = '\0';
	for (size_t i = 0; i < ports->n && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%u=%u", i ? "\n" : "", ports->list[i].old,
					 ports->list[i].new);
}

int ports_check(const struct ports *ports, struct fsnap_error *err)
{
	for (size_t i = 0; i < ports->n; i++)
		if (!ports->list[i].used) {
			fail(err, FSNAP_E_USAGE, 0, "--listen %u=%u: nobody of the image has port %u",
			     ports->list[i].old, ports->list[i].new, ports->list[i].old);
			return error_hint(err, "fsnap inspect shows its sockets");
		}
	return 0;
}

void restore_move_port(struct restore *restore, char *address, unsigned length)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)address; /* the port is at one place in both families */
	if (length < sizeof(*v4))
		return;
	for (size_t i = 0; i < restore->ports.n; i++) {
		struct moved_port *moved = &restore->ports.list[i];
		if (v4->sin_port != htons(moved->old))
			continue;
		moved->used = 1;
		v4->sin_port = htons(moved->new);
		return;
	}
}

uint16_t restore_port_before(const struct restore *restore, uint16_t port)
{
	for (size_t i = 0; i < restore->ports.n; i++)
		if (restore->ports.list[i].new == port && restore->ports.list[i].used)
			return restore->ports.list[i].old;
	return port;
}
