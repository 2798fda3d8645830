/*
 * coded.h - the page area of a file that is compressed, encrypted, or both.
 *
 * Its blocks lie one behind the other as frames; the table of them says how long each is. Who maps pages, or reads them
 * through a descriptor, gets them from memory (a memfd, as long as the page area would be) into which blocks are
 * decoded when they are wanted first. Who reads for himself decodes for himself.
 *
 * In this order, each before the next: the checksum of the bytes as stored, their tag, what they unpack to.
 */
#ifndef STORE_CODED_H
#define STORE_CODED_H

#include "store/cipher.h"
#include "store/codec.h"

struct page_file;
struct coded;

/* Of a file whose slot says so. Takes over the table of frames, and fills in how its pages are reached. */
int coded_open(struct page_file *file, struct layout_frame *frames, struct keyring *ring, const char *image,
	       struct fsnap_error *err);
void coded_close(struct coded *coded);

/* Bounds of the frames, and that they are as long as all of them are said to be: NULL, or what is wrong. */
const char *coded_check_frames(const struct layout_slot *slot, const struct layout_frame *frames);

/* The table `which` of a file, in place of what was read: encrypted ones are decrypted. NULL with *err. */
void *coded_table(const struct page_file *file, unsigned which, void *bytes, const char *image, const char *what,
		  struct fsnap_error *err);

struct image_extent coded_extent(const struct page_file *file, uint64_t block);
int coded_memory(const struct page_file *file);
struct cipher *coded_cipher(const struct page_file *file);

/* From bytes as stored. */
int coded_decode(const struct page_file *file, uint64_t block, const void *bytes, void *to,
		 struct image_decoder *decoder, const char *image, struct fsnap_error *err);

/* Into the memory, unless it is there. */
int coded_prepare(const struct page_file *file, uint64_t block, const char *image, struct fsnap_error *err);
/* Decodes it, and keeps nothing. */
int coded_verify(const struct page_file *file, uint64_t block, const char *image, struct fsnap_error *err);

#endif
