/*
 * cipher.h - the keys of an encrypted image, and what is done with them. The cryptography is libsodium's.
 *
 * What a user has is a key file, or a passphrase from which Argon2id makes such a key. Of it, and of the salt and the UUID
 * of an image, BLAKE2b makes the keys of that image: no two images have the same, so that numbers of blocks and tables do as
 * nonces. One is for pages and tables (an AEAD, tag apart), one for the MAC of what stays readable; a third value
 * tells whether it is the right key.
 *
 * Keys lie in memory that is locked, kept out of core files, and wiped (sodium_malloc(3)).
 */
#ifndef STORE_CIPHER_H
#define STORE_CIPHER_H

#include "store/layout.h"

#define CIPHER_KEY 32 /* bytes */

/* Where the key of this store's images is from: see store_set_key(). */
struct keyring {
	struct keyring *lender; /* NULL, or whose key it is: it outlives this one */
	char *source; /* NULL: $FSNAP_KEY */
	struct secret *secret; /* loaded when it is needed first */
};

void keyring_free(struct keyring *ring);

/* Whether there is any key, be it the right one or not. */
bool keyring_has_key(const struct keyring *ring);

struct cipher;

/* For an image that is to be written: fills in all of `coding` but tags and MAC. coding->cipher is given. */
struct cipher *cipher_new(struct keyring *ring, struct layout_coding *coding, const uint8_t uuid[16],
			  struct fsnap_error *err);

/* For one that is read. IMAGE_KEY: there is no key, or it is another. */
struct cipher *cipher_open(struct keyring *ring, const struct layout_coding *coding, const uint8_t uuid[16],
			   const char *image, struct fsnap_error *err);
void cipher_free(struct cipher *cipher);

/* Memory locks are not inherited by children: to be called in one. */
void cipher_lock(struct cipher *cipher);

/* What is encrypted has a number of its own within the image: that of the block, or one of a table. */
#define CIPHER_TABLE(i) (1ull << 63 | (uint64_t)(i))

/* `to` and `from` are of the same length, and apart. `codec` and `plain`: how long it is when it is unpacked again, and how. */
void cipher_encrypt(const struct cipher *cipher, uint64_t number, uint32_t codec, uint64_t plain, void *to,
		    const void *from, uint64_t length, uint8_t tag[16]);
bool cipher_decrypt(const struct cipher *cipher, uint64_t number, uint32_t codec, uint64_t plain, void *to,
		    const void *from, uint64_t length, const uint8_t tag[16]);

/* Over superblock, slot (up to the MAC), frames and lineage. */
void cipher_mac(const struct cipher *cipher, const struct layout_super *super, const struct layout_slot *slot,
		const void *frames, const void *lineage, uint8_t mac[32]);

#endif
