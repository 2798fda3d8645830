/*
 * load.h - what all loaders of BPF programs share.
 */
#ifndef BPF_LOAD_H
#define BPF_LOAD_H

#include "store/error.h"

/* libbpf prints what it thinks to stderr; a library must not. The last thing it said goes into errors. */
void bpf_quiet(void);

/* KERNEL_LACKS or PERMISSION, with what libbpf said and what helps. Returns -1. */
int bpf_refused(struct fsnap_error *err, int sys, const char *what);

#endif
