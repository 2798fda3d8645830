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

/* What loading has come to: libbpf, where its probe for it fails, does without the memory that programs and we have in
 * common, and says nothing. */
int bpf_loaded(int result, const void *shared);

/* Runs an iterator once that tells what it finds in its maps, and nothing through its descriptor. */
int bpf_run(struct bpf_program *program, union bpf_iter_link_info info, const char *what,
	    struct fsnap_error *err);

/* An iterator of a program: a descriptor; reading it runs the program. */
int bpf_begin(int program, const union bpf_iter_link_info *info, const char *what, struct fsnap_error *err);

/* struct NAME_reader, NAME_open() and NAME_close(), of a reader that has nothing but its skeleton; `shared`: the memory it
 * has in common with its programs (bpf_loaded()), or anything, where there is none. */
#define BPF_READER(name, what) BPF_READER_OF(name, what, reader->skeleton->bss)
#define BPF_READER_OF(name, what, shared)                                                             \
	struct name##_reader {                                                                        \
		struct name##_bpf *skeleton;                                                          \
	};                                                                                            \
	struct name##_reader *name##_open(struct fsnap_error *err)                                    \
	{                                                                                             \
		struct name##_reader *reader = calloc(1, sizeof(*reader));                            \
		if (!reader) {                                                                        \
			fail(err, FSNAP_E_NOMEM, ENOMEM, what);                                       \
			return NULL;                                                                  \
		}                                                                                     \
		bpf_quiet();                                                                          \
		reader->skeleton = name##_bpf__open();                                                \
		int result = reader->skeleton ? name##_bpf__load(reader->skeleton) : -errno;          \
		result = bpf_loaded(result, result ? NULL : (shared));                                  \
		if (result == 0)                                                                      \
			return reader;                                                                \
		bpf_refused(err, -result, what);                                                      \
		name##_close(reader);                                                                 \
		return NULL;                                                                          \
	}                                                                                             \
	void name##_close(struct name##_reader *reader)                                               \
	{                                                                                             \
		if (!reader)                                                                          \
			return;                                                                       \
		name##_bpf__destroy(reader->skeleton);                                                \
		free(reader);                                                                         \
	}

#endif
