#include "engine/kinds/inet_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/kinds/kinds.h"

union inet_address inet_address(const char *bytes, unsigned length)
{
	union inet_address address = {0};
	if (length)
		memcpy(&address, bytes, length < sizeof(address) ? length : sizeof(address));
	return address;
}

size_t inet_address_size(int family)
{
	return family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static bool is_v6(const union inet_address *address)
{
	return address->any.sa_family == AF_INET6;
}

uint16_t inet_port(const union inet_address *address)
{
	return is_v6(address) ? address->v6.sin6_port : address->v4.sin_port;
}

bool inet_is_any(const union inet_address *address)
{
	return is_v6(address) ? IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr) :
				address->v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

const char *inet_describe(const char *what, const union inet_address *address, char *text,
			  size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";
	bool v6 = is_v6(address);
	inet_ntop(v6 ? AF_INET6 : AF_INET,
		  v6 ? (const void *)&address->v6.sin6_addr : (const void *)&address->v4.sin_addr,
		  host, sizeof(host));
	snprintf(text, size, v6 ? "%s [%s]:%u" : "%s %s:%u", what, host, ntohs(inet_port(address)));
	return text;
}

/* --listen wants to be told the port that the image has, which may have been moved already. */
static int hint_taken(const struct restore *restore, unsigned port, struct fsnap_error *err)
{
	unsigned before = restore_port_before(restore, (uint16_t)port);
	if (before != port)
		return error_hint(err, "--listen %u=%u has put it there; `ss -ap` shows who has it. Another port will "
				       "do, or any that is free: --listen %u=0", before, port, before);
	return error_hint(err, "Perhaps the process that was saved still runs; `ss -ap` shows "
			       "who has it. A copy beside it can have another port (--listen %u=0) or a "
			       "network of its own (--net-ns).", port);
}

int inet_refused_bind(const struct restore *restore, const char *what, const union inet_address *address, int sys,
		      struct fsnap_error *err)
{
	char name[80];
	inet_describe(what, address, name, sizeof(name));
	switch (sys) {
	case EADDRINUSE:
		fail(err, FSNAP_E_ADDRESS_TAKEN, 0, "the address %s is in use", name);
		return hint_taken(restore, ntohs(inet_port(address)), err);
	case EADDRNOTAVAIL:
		fail(err, FSNAP_E_RESTORE_STEP, sys, "bind to %s", name);
		return error_hint(err, "This machine has no such address: add it to an interface.");
	case EACCES:
		fail(err, FSNAP_E_PERMISSION, sys, "bind to %s", name);
		return error_hint(err, "Restore as root: the port is a privileged one.");
	}
	return fail(err, FSNAP_E_RESTORE_STEP, sys, "bind to %s", name);
}
