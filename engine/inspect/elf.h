/*
 * elf.h - as much of an ELF file as a backtrace needs: where it is loaded, where
 * its unwind table is, what its functions are called.
 *
 * The file may be on disk, in an image, or in the memory of a process (the vDSO),
 * and may be damaged: nothing in it is believed before it is checked.
 */
#ifndef INSPECT_ELF_H
#define INSPECT_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf;

/* Reads n bytes of the file at offset; returns how many there were. */
typedef size_t (*elf_read_fn)(void *arg, uint64_t offset, void *to, size_t n);

/* NULL: it is no ELF file for x86-64. `arg` must live until elf_close(). */
struct elf *elf_open(elf_read_fn read, void *arg);
void elf_close(struct elf *elf);

/* The ELF address at which an offset of the file is loaded. */
bool elf_address(const struct elf *elf, uint64_t offset, uint64_t *address);

/* ELF address of .eh_frame_hdr; 0: there is none. */
uint64_t elf_unwind_table(const struct elf *elf);

/* The function that `address` lies in, and how far in. NULL where no symbol covers it. */
const char *elf_symbol(struct elf *elf, uint64_t address, uint64_t *into);

#endif
