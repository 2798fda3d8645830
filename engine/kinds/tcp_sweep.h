#ifndef ENGINE_KINDS_TCP_SWEEP_H
#define ENGINE_KINDS_TCP_SWEEP_H

/* Takes away closed TCP connections that still hold a local port (network byte order); returns
 * how many, 0 also where the caller may not. */
int tcp_sweep(unsigned short port);

#endif
