/*
 * secret.h - the key that a user has: a file's, or what Argon2id makes of a passphrase.
 */
#ifndef STORE_SECRET_H
#define STORE_SECRET_H

#include "store/cipher.h"

struct secret;

/* The ring's, loaded if it was not. NULL: it cannot be, and why. */
struct secret *keyring_secret(struct keyring *ring, struct fsnap_error *err);

/* For an image to be written: how its master key is made of this secret. */
void secret_choose(struct secret *secret, struct layout_coding *coding);

/* Is it of the sort that the image was encrypted with? */
bool secret_fits(const struct secret *secret, const struct layout_coding *coding);

/* What Argon2id made last is kept: images that were made together share the salt, and ask for it once. */
int secret_master(struct secret *secret, const struct layout_coding *coding, uint8_t master[CIPHER_KEY],
		  struct fsnap_error *err);

#endif
