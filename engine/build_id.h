/*
 * build_id.h - the build ID of an ELF file: the linker's hash over what it made.
 */
#ifndef ENGINE_BUILD_ID_H
#define ENGINE_BUILD_ID_H

#include <stddef.h>

#define BUILD_ID_MAX 64

/* Its length in bytes; 0: the file has none. Nothing in the file is believed. */
size_t build_id_read(int fd, unsigned char id[BUILD_ID_MAX]);

#endif
