/*
 * tcp_hold.h - holding back the packets of connections that stand still.
 *
 * Between the freeze and the restore nobody answers for a connection: a packet
 * that came in then would be answered by the kernel with a reset, or be
 * acknowledged behind the image's back.  A table of nftables drops the packets of
 * exactly these connections; TCP sends them again.
 *
 * There are two sorts.  A passing hold belongs to the descriptor that it was made
 * with, and the kernel removes it when that is closed (NFT_TABLE_F_OWNER, since
 * Linux 5.12): whatever happens to us, nobody's packets stay behind.  A lasting
 * one stands until it is removed by name.
 */
#ifndef ENGINE_KINDS_TCP_HOLD_H
#define ENGINE_KINDS_TCP_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

#define TCP_HOLD_NAME 32

/* Segments that we make ourselves carry this mark, and pass (tcp_forge.c). */
#define TCP_HOLD_PASS 0x66736e70u

/* The two ends of a connection. IPv4 addresses (mapped ones, too) fill the first 4 bytes; all in
 * network byte order. */
struct tcp_ends { /* no padding: compared as bytes */
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port;
	uint16_t v6;
};

/* Both return a descriptor (the passing hold ends with it), -1 with *err set. */
int tcp_hold(const char *name, bool passing, const struct tcp_ends *ends, size_t n,
	     struct fsnap_error *err);

/* Holds more in a passing hold. */
int tcp_hold_more(int hold, const char *name, const struct tcp_ends *ends, size_t n,
		  struct fsnap_error *err);

/* A place where connections come in, in network byte order; an IPv4 address fills the first 4 bytes. */
struct tcp_door {
	uint8_t address[16];
	uint16_t port;
	bool v6, any; /* any: whatever the address */
	bool both;    /* any: of IPv4, too */
};

/* Holds back calls (SYN) to these places in a passing hold; whoever calls does so again a second later. */
int tcp_hold_calls(int hold, const char *name, const struct tcp_door *doors, size_t n, struct fsnap_error *err);

bool tcp_hold_stands(const char *name);
int tcp_hold_remove(const char *name, struct fsnap_error *err);

#endif
