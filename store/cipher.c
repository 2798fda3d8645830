#define _GNU_SOURCE
#include "store/cipher.h"

#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "store/secret.h"

struct cipher {
	crypto_aead_aes256gcm_state aes; /* first: it must be aligned, and this ends at the end of a page */
	uint8_t data[CIPHER_KEY];
	uint8_t head[CIPHER_KEY];
	uint32_t kind;
	uint32_t unused[3];
};
static_assert(sizeof(struct cipher) % 16 == 0, "sodium_malloc(3) aligns by the size");

/* Begins what BLAKE2b makes keys of, so that none is made twice. */
#define LABEL_DATA "fsnap data key\0\1"
#define LABEL_HEAD "fsnap head key\0\1"
#define LABEL_CHECK "fsnap key check\1"
#define LABEL 16

static void derive(uint8_t out[32], const uint8_t master[CIPHER_KEY], const char *label, const uint8_t salt[32],
		   const uint8_t uuid[16])
{
	uint8_t about[LABEL + 32 + 16];
	memcpy(about, label, LABEL);
	memcpy(about + LABEL, salt, 32);
	memcpy(about + LABEL + 32, uuid, 16);
	crypto_generichash(out, 32, about, sizeof(about), master, CIPHER_KEY);
}

static int lacks_aes(struct fsnap_error *err)
{
	fail(err, FSNAP_E_UNSUPPORTED, 0, "AES-256-GCM: this processor has no instructions for it");
	return error_hint(err, "an image to be read here is encrypted with --cipher xchacha20");
}

static struct cipher *make(const uint8_t master[CIPHER_KEY], const struct layout_coding *coding,
			   const uint8_t uuid[16], struct fsnap_error *err)
{
	if (coding->cipher == STORE_AES256 && !crypto_aead_aes256gcm_is_available()) {
		lacks_aes(err);
		return NULL;
	}
	struct cipher *cipher = sodium_malloc(sizeof(*cipher));
	if (!cipher) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "the keys of an image");
		return NULL;
	}
	cipher->kind = coding->cipher;
	derive(cipher->data, master, LABEL_DATA, coding->salt, uuid);
	derive(cipher->head, master, LABEL_HEAD, coding->salt, uuid);
	if (cipher->kind == STORE_AES256)
		crypto_aead_aes256gcm_beforenm(&cipher->aes, cipher->data);
	return cipher;
}

struct cipher *cipher_new(struct keyring *ring, struct layout_coding *coding, const uint8_t uuid[16],
			  struct fsnap_error *err)
{
	struct cipher *cipher = NULL;
	struct secret *secret = keyring_secret(ring, err);
	uint8_t *master = secret ? sodium_malloc(CIPHER_KEY) : NULL;
	if (!secret)
		return NULL;
	if (!master)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "the keys of an image");
	else
		secret_choose(secret, coding);
	if (master && secret_master(secret, coding, master, err) == 0) {
		randombytes_buf(coding->salt, sizeof(coding->salt));
		derive(coding->check, master, LABEL_CHECK, coding->salt, uuid);
		cipher = make(master, coding, uuid, err);
	}
	sodium_free(master);
	return cipher;
}

static int needs_key(const char *image, const struct layout_coding *coding, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_KEY, 0, "image %s: it is encrypted, and no key is given", image);
	return error_hint(err, coding->kdf ? "--decrypt passphrase, or $FSNAP_KEY" :
					     "--decrypt FILE, or $FSNAP_KEY: the key file that it was made with");
}

static int wrong_key(const char *image, const struct layout_coding *coding, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_KEY, 0, "image %s: it is encrypted with another %s", image,
	     coding->kdf ? "passphrase" : "key");
	return error_hint(err, "--decrypt (or $FSNAP_KEY) says which %s was used when it was made",
			  coding->kdf ? "passphrase" : "key file");
}

struct cipher *cipher_open(struct keyring *ring, const struct layout_coding *coding, const uint8_t uuid[16],
			   const char *image, struct fsnap_error *err)
{
	struct cipher *cipher = NULL;
	uint8_t check[sizeof(coding->check)];
	if (!keyring_has_key(ring)) {
		needs_key(image, coding, err);
		return NULL;
	}
	struct secret *secret = keyring_secret(ring, err);
	uint8_t *master = secret ? sodium_malloc(CIPHER_KEY) : NULL;
	if (!secret)
		return NULL;
	if (!master) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "the keys of an image");
		return NULL;
	}
	int result = secret_fits(secret, coding) ? secret_master(secret, coding, master, err) : 1;
	if (result == 0) {
		derive(check, master, LABEL_CHECK, coding->salt, uuid);
		result = sodium_memcmp(check, coding->check, sizeof(check)) != 0;
	}
	if (result == 0)
		cipher = make(master, coding, uuid, err);
	else if (result > 0)
		wrong_key(image, coding, err);
	sodium_free(master);
	return cipher;
}

void cipher_free(struct cipher *cipher)
{
	sodium_free(cipher);
}

void cipher_lock(struct cipher *cipher)
{
	if (cipher)
		sodium_mlock(cipher, sizeof(*cipher));
}

/* --- data -------------------------------------------------------------------------------- */

/* Both ciphers take what is needed of it: 24 bytes, or the first 12. */
struct nonce {
	uint64_t number;
	uint64_t zero[2];
};
static_assert(sizeof(struct nonce) == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, "nonce");

struct associated {
	uint64_t number;
	uint64_t plain;
	uint64_t codec;
};

void cipher_encrypt(const struct cipher *cipher, uint64_t number, uint32_t codec, uint64_t plain, void *to,
		    const void *from, uint64_t length, uint8_t tag[16])
{
	struct nonce nonce = { .number = number };
	struct associated about = { number, plain, codec };
	if (cipher->kind == STORE_AES256)
		crypto_aead_aes256gcm_encrypt_detached_afternm(to, tag, NULL, from, length, (uint8_t *)&about,
							       sizeof(about), NULL, (uint8_t *)&nonce, &cipher->aes);
	else
		crypto_aead_xchacha20poly1305_ietf_encrypt_detached(to, tag, NULL, from, length, (uint8_t *)&about,
								    sizeof(about), NULL, (uint8_t *)&nonce,
								    cipher->data);
}

bool cipher_decrypt(const struct cipher *cipher, uint64_t number, uint32_t codec, uint64_t plain, void *to,
		    const void *from, uint64_t length, const uint8_t tag[16])
{
	struct nonce nonce = { .number = number };
	struct associated about = { number, plain, codec };
	if (cipher->kind == STORE_AES256)
		return crypto_aead_aes256gcm_decrypt_detached_afternm(to, NULL, from, length, tag, (uint8_t *)&about,
								      sizeof(about), (uint8_t *)&nonce,
								      &cipher->aes) == 0;
	return crypto_aead_xchacha20poly1305_ietf_decrypt_detached(to, NULL, from, length, tag, (uint8_t *)&about,
								   sizeof(about), (uint8_t *)&nonce,
								   cipher->data) == 0;
}

void cipher_mac(const struct cipher *cipher, const struct layout_super *super, const struct layout_slot *slot,
		const void *frames, const void *lineage, uint8_t mac[32])
{
	crypto_generichash_state state;
	crypto_generichash_init(&state, cipher->head, sizeof(cipher->head), 32);
	crypto_generichash_update(&state, (const uint8_t *)super, sizeof(*super));
	crypto_generichash_update(&state, (const uint8_t *)slot,
				  offsetof(struct layout_slot, coding) + offsetof(struct layout_coding, mac));
	if (slot->blocks.length)
		crypto_generichash_update(&state, frames, slot->blocks.length);
	if (slot->lineage.length)
		crypto_generichash_update(&state, lineage, slot->lineage.length);
	crypto_generichash_final(&state, mac, 32);
	sodium_memzero(&state, sizeof(state));
}
