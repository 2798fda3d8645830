/*
 * peek.h - looking at what the kernel keeps behind a descriptor.
 *
 * Some queues can only be read by taking out what is in them: a target that goes
 * on running would miss it, and if we died in between it would be lost.  Where the
 * kernel lets us (BPF, with its type information), such state is looked at in
 * the kernel's memory instead, which disturbs nobody.  Addresses are the kernel's:
 * integers here.
 */
#ifndef ENGINE_KINDS_PEEK_H
#define ENGINE_KINDS_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dump;
struct peek;

/* NULL where the kernel or our rights do not let us look; asked once per dump. */
struct peek *dump_peek(struct dump *dump);

struct peek *peek_open(void);
void peek_close(struct peek *peek);

/* Where a member lies in a struct of the running kernel. "a.b" is member b of member a. */
struct peek_member {
	const char *type, *member;
	uint64_t offset; /* filled, bytes */
};

/* False: this kernel has one of them not. */
bool peek_layout(const struct peek *peek, struct peek_member *members, size_t n);

/* Copies bytes out of the kernel's memory; false where nothing can be read. */
bool peek_bytes(struct peek *peek, uint64_t address, void *to, size_t size);

/* 8 bytes at address + offset; 0 where nothing can be read. */
uint64_t peek_word(struct peek *peek, uint64_t address, uint64_t offset);
uint32_t peek_half(struct peek *peek, uint64_t address, uint64_t offset); /* 4 bytes */

/* The struct file, its private_data and its inode, of a descriptor of ours; 0: not to be had. */
uint64_t peek_file(struct peek *peek, int fd);
uint64_t peek_private(struct peek *peek, int fd);
uint64_t peek_inode(struct peek *peek, int fd);

#endif
