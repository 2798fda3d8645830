#define _GNU_SOURCE
#include "store/secret.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/scope.h"
#include "store/signature.h"

#define PASSPHRASE "passphrase:"
#define PASSPHRASE_MAX 1024

/* RFC 9106 asks for 64 MiB and three passes, at least. What an image may ask for is bounded: else it could take all
 * memory there is, before anybody knows whose it is. */
#define PASSES crypto_pwhash_OPSLIMIT_MODERATE
#define MEMORY crypto_pwhash_MEMLIMIT_MODERATE
#define PASSES_MOST 16
#define MEMORY_MOST (1ull << 30)

struct secret {
	bool is_passphrase;
	bool made; /* master is what Argon2id made with the rest */
	uint32_t passes;
	uint64_t memory;
	uint8_t salt[16];
	uint8_t master[CIPHER_KEY]; /* of a key file: the key */
	size_t length;
	char passphrase[PASSPHRASE_MAX];
};

/* --- loading ------------------------------------------------------------------------------ */

static const char *source_of(const struct keyring *ring)
{
	return ring->source ? ring->source : secure_getenv("FSNAP_KEY");
}

bool keyring_has_key(const struct keyring *ring)
{
	if (ring->lender)
		return keyring_has_key(ring->lender);
	return ring->secret || source_of(ring);
}

/* The first line of a file, without its end. */
static int read_passphrase(const char *path, struct secret *secret, struct fsnap_error *err)
{
	struct stat st;
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, FSNAP_E_USAGE, errno, "%s: opening the passphrase", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & 077)) {
		fail(err, FSNAP_E_USAGE, 0, "%s: others may read this passphrase", path);
		return error_hint(err, "chmod 600 %s", path);
	}
	while (secret->length < sizeof(secret->passphrase)) {
		ssize_t n = read(fd, secret->passphrase + secret->length, sizeof(secret->passphrase) - secret->length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "%s: reading the passphrase", path);
		if (n == 0)
			break;
		secret->length += (size_t)n;
	}
	char *end = memchr(secret->passphrase, '\n', secret->length);
	if (end)
		secret->length = (size_t)(end - secret->passphrase);
	if (secret->length && secret->length < sizeof(secret->passphrase))
		return 0;
	return fail(err, FSNAP_E_USAGE, 0, "%s: a passphrase is a line of 1 to %zu bytes", path,
		    sizeof(secret->passphrase) - 1);
}

static struct secret *load(const char *source, struct fsnap_error *err)
{
	struct secret *secret = sodium_init() < 0 ? NULL : sodium_malloc(sizeof(*secret));
	if (!secret) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "a key");
		return NULL;
	}
	memset(secret, 0, sizeof(*secret));
	secret->is_passphrase = strncmp(source, PASSPHRASE, strlen(PASSPHRASE)) == 0;
	int result = secret->is_passphrase ? read_passphrase(source + strlen(PASSPHRASE), secret, err) :
					     key_read_image(source, secret->master, err);
	if (result == 0)
		return secret;
	sodium_free(secret);
	return NULL;
}

struct secret *keyring_secret(struct keyring *ring, struct fsnap_error *err)
{
	if (ring->lender)
		return keyring_secret(ring->lender, err);
	const char *source = source_of(ring);
	if (ring->secret)
		return ring->secret;
	if (source)
		return ring->secret = load(source, err);
	fail(err, FSNAP_E_USAGE, 0, "no key to encrypt with");
	return NULL;
}

void keyring_free(struct keyring *ring)
{
	sodium_free(ring->secret);
	free(ring->source);
	*ring = (struct keyring){ 0 };
}

/* --- using it ------------------------------------------------------------------------------- */

void secret_choose(struct secret *secret, struct layout_coding *coding)
{
	coding->kdf = secret->is_passphrase;
	if (!secret->is_passphrase)
		return;
	if (!secret->made) {
		secret->passes = PASSES;
		secret->memory = MEMORY;
		randombytes_buf(secret->salt, sizeof(secret->salt));
	}
	coding->kdf_passes = secret->passes;
	coding->kdf_memory = secret->memory;
	memcpy(coding->kdf_salt, secret->salt, sizeof(coding->kdf_salt));
}

bool secret_fits(const struct secret *secret, const struct layout_coding *coding)
{
	return secret->is_passphrase == (coding->kdf != 0);
}

static bool is_made(const struct secret *secret, const struct layout_coding *coding)
{
	return secret->made && secret->passes == coding->kdf_passes && secret->memory == coding->kdf_memory &&
	       memcmp(secret->salt, coding->kdf_salt, sizeof(secret->salt)) == 0;
}

int secret_master(struct secret *secret, const struct layout_coding *coding, uint8_t master[CIPHER_KEY],
		  struct fsnap_error *err)
{
	if (secret->is_passphrase && !is_made(secret, coding)) {
		secret->made = false;
		if (coding->kdf_passes < 1 || coding->kdf_passes > PASSES_MOST ||
		    coding->kdf_memory < crypto_pwhash_MEMLIMIT_MIN || coding->kdf_memory > MEMORY_MOST)
			return fail(err, FSNAP_E_IMAGE_CORRUPT, 0,
				    "the image asks for more work on its passphrase than any that fsnap made");
		if (crypto_pwhash(secret->master, CIPHER_KEY, secret->passphrase, secret->length, coding->kdf_salt,
				  coding->kdf_passes, coding->kdf_memory, crypto_pwhash_ALG_ARGON2ID13) != 0)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "a key of the passphrase (Argon2id)");
		secret->passes = coding->kdf_passes;
		secret->memory = coding->kdf_memory;
		memcpy(secret->salt, coding->kdf_salt, sizeof(secret->salt));
		secret->made = true;
	}
	memcpy(master, secret->master, CIPHER_KEY);
	return 0;
}
