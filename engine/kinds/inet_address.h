/*
 * inet_address.h - addresses of IPv4 and IPv6 as the image keeps them, shared by
 * TCP and all that sends datagrams.
 */
#ifndef ENGINE_KINDS_INET_ADDRESS_H
#define ENGINE_KINDS_INET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

struct restore;

union inet_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	char bytes[128];
};

/* From what the image says; zeroes where it says less. */
union inet_address inet_address(const char *bytes, unsigned length);

/* How many bytes an address of the family has at least. */
size_t inet_address_size(int family);

/* In network byte order; 0: not bound. */
uint16_t inet_port(const union inet_address *address);

bool inet_is_any(const union inet_address *address);

/* "TCP [::1]:8080" */
const char *inet_describe(const char *what, const union inet_address *address, char *text,
			  size_t size);

/* bind(2) to the address ended with errno `sys`: the error and what can be done. Returns -1. */
int inet_refused_bind(const struct restore *restore, const char *what, const union inet_address *address, int sys,
		      struct fsnap_error *err);

#endif
