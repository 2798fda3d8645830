/*
 * signature.h - who vouches for an image.
 *
 * A signature stands behind the image in its file, so that both travel together:
 *
 *	[0, covered)	the image, as committed
 *	table		BLAKE2b-256 of each MiB of it
 *	last 4096 bytes	struct signature_tail: Ed25519 over the table's hash and where all this is
 *
 * Where keys are trusted, no byte of a file is interpreted before the signature of one of them, and the
 * hash of the MiB that the byte is in, were found right. Pages are hashed when their checksums are checked.
 * The cryptography is libsodium's.
 */
#ifndef STORE_SIGNATURE_H
#define STORE_SIGNATURE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/error.h"

#define KEY_PUBLIC 32 /* bytes */
#define KEY_SECRET 64

struct trust {
	uint8_t (*keys)[KEY_PUBLIC];
	unsigned n;
};

/* Whom to trust: the *.pub files of /etc/fsnap/trusted, and of the directory $FSNAP_TRUSTED. None (n = 0):
 * images need no signature. What is there and cannot be understood is an error, and trusts nobody. */
int trust_load(struct trust *trust, struct fsnap_error *err);
int trust_copy(struct trust *trust, const struct trust *from, struct fsnap_error *err);
void trust_free(struct trust *trust);

/* Key files are one line of text: what it is, the key in base64, a comment. */
int key_read_public(const char *path, uint8_t key[KEY_PUBLIC], struct fsnap_error *err);
int key_read_secret(const char *path, uint8_t key[KEY_SECRET], struct fsnap_error *err);

/* The key that images are encrypted with, in a file that nobody else may read. */
#define KEY_IMAGE 32
int key_read_image(const char *path, uint8_t key[KEY_IMAGE], struct fsnap_error *err);
int key_make_image(const char *path, struct fsnap_error *err);

/* Makes a pair: `path`, which must not exist and only its owner may read, and `path`.pub. */
int key_make(const char *path, struct fsnap_error *err);

struct signature;

/* Looks for the signature of one whom we trust in a file of that length. *signature is NULL, which the others
 * accept, where nobody is trusted in particular. */
int signature_open(struct signature **signature, int fd, uint64_t file_size, const char *image,
		   const struct trust *trust, struct fsnap_error *err);
void signature_close(struct signature *signature);

/* Are these bytes what was signed? Those looked at once are not looked at again. Thread-safe. */
int signature_check(struct signature *signature, uint64_t offset, uint64_t length, struct fsnap_error *err);

/* Does the file end in a signature, whosever it is? */
bool signature_is_there(int fd, uint64_t file_size);

/* Puts a signature behind the first `covered` bytes of a file, in place of whatever is there. */
int signature_make(int fd, uint64_t covered, const uint8_t key[KEY_SECRET], const char *image,
		   struct fsnap_error *err);

#endif
