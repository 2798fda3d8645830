/*
 * load.h - what all loaders of BPF programs share.
 */
#ifndef BPF_LOAD_H
#define BPF_LOAD_H

#include <bpf/libbpf.h>

#include "store/error.h"

/* libbpf prints what it thinks to stderr; a library must not. The last thing it said goes into errors. */
void bpf_quiet(void);

/* KERNEL_LACKS or PERMISSION, with what libbpf said and what helps. Returns -1. */
int bpf_refused(struct fsnap_error *err, int sys, const char *what);

/* Runs an iterator once that tells what it finds in its maps, and nothing through its descriptor. */
int bpf_run(struct bpf_program *program, union bpf_iter_link_info info, const char *what,
	    struct fsnap_error *err);

#endif
