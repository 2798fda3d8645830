/* signature.c - the signature of one file: made, found, and held against its bytes. */
#define _GNU_SOURCE
#include "store/signature.h"

#include <assert.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/reader.h"
#include "store/scope.h"

#define MAGIC "FSNAPSIG"
#define VERSION 1
#define CHUNK (1ull << 20)
#define HASH 32

/* All before `signature` is signed. Little-endian. */
struct signature_tail {
	uint8_t magic[8];
	uint32_t version;
	uint32_t chunk;	  /* CHUNK */
	uint64_t covered; /* bytes of the file, from 0 */
	uint64_t table;	  /* offset of the hashes, one per chunk */
	uint8_t key[KEY_PUBLIC];
	uint8_t table_hash[HASH];
	uint8_t signature[crypto_sign_BYTES];
	uint8_t zero[4096 - 24 - 8 - KEY_PUBLIC - HASH - crypto_sign_BYTES];
};
static_assert(sizeof(struct signature_tail) == 4096, "on-disk size");
#define SIGNED offsetof(struct signature_tail, signature)

struct signature {
	int fd;
	char *image;
	uint64_t covered;
	uint8_t (*hashes)[HASH];
	atomic_bool *seen; /* per chunk */
};

static uint64_t chunks(uint64_t covered)
{
	return (covered + CHUNK - 1) / CHUNK;
}

static int hash_chunk(int fd, uint64_t chunk, uint64_t covered, uint8_t hash[HASH], const char *image,
		      struct fsnap_error *err)
{
	cleanup_free uint8_t *bytes = malloc(CHUNK);
	uint64_t at = chunk * CHUNK, length = covered - at < CHUNK ? covered - at : CHUNK;
	if (!bytes)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its signature", image);
	if (read_exactly(fd, bytes, length, at, image, err) < 0)
		return -1;
	crypto_generichash(hash, HASH, bytes, length, NULL, 0);
	return 0;
}

/* --- checking --------------------------------------------------------------------------- */

static int refuse(struct fsnap_error *err, const char *image, const char *why)
{
	fail(err, FSNAP_E_IMAGE_SIGNATURE, 0, "image %s: %s", image, why);
	return error_hint(err, "images must be signed here (/etc/fsnap/trusted, $FSNAP_TRUSTED): have it signed by "
			       "one of those keys, `fsnap sign --key FILE IMAGE`, if it is what you think it is");
}

static bool trusts(const struct trust *trust, const uint8_t *key)
{
	for (unsigned i = 0; i < trust->n; i++)
		if (sodium_memcmp(trust->keys[i], key, KEY_PUBLIC) == 0)
			return true;
	return false;
}

/* What the tail says, once it is known who says it. */
static const char *check_tail(const struct signature_tail *tail, uint64_t file_size, const struct trust *trust)
{
	if (memcmp(tail->magic, MAGIC, sizeof(tail->magic)) != 0)
		return "it is not signed";
	if (!trusts(trust, tail->key))
		return "it is signed with a key that is not trusted here";
	if (crypto_sign_verify_detached(tail->signature, (const uint8_t *)tail, SIGNED, tail->key) != 0)
		return "its signature is wrong";
	if (tail->version != VERSION || tail->chunk != CHUNK)
		return "its signature is of a newer fsnap";
	if (tail->covered == 0 || tail->covered > LAYOUT_LIMIT || tail->table < tail->covered ||
	    tail->table > file_size - sizeof(*tail) ||
	    chunks(tail->covered) * HASH > file_size - sizeof(*tail) - tail->table)
		return "its signature is of a file of another length";
	return NULL;
}

static int read_table(struct signature *signature, const struct signature_tail *tail, struct fsnap_error *err)
{
	uint8_t hash[HASH];
	uint64_t n = chunks(tail->covered);
	signature->covered = tail->covered;
	signature->hashes = calloc(n, HASH);
	signature->seen = calloc(n, sizeof(*signature->seen));
	if (!signature->hashes || !signature->seen)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its signature", signature->image);
	if (read_exactly(signature->fd, signature->hashes, n * HASH, tail->table, signature->image, err) < 0)
		return -1;
	crypto_generichash(hash, HASH, (const uint8_t *)signature->hashes, n * HASH, NULL, 0);
	if (sodium_memcmp(hash, tail->table_hash, HASH) != 0)
		return refuse(err, signature->image, "it has been altered since it was signed");
	return 0;
}

static int open_signed(struct signature *signature, uint64_t file_size, const struct trust *trust,
		       struct fsnap_error *err)
{
	struct signature_tail tail;
	if (!signature->image)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the signature of an image");
	if (file_size < sizeof(tail))
		return refuse(err, signature->image, "it is not signed");
	if (read_exactly(signature->fd, &tail, sizeof(tail), file_size - sizeof(tail), signature->image, err) < 0)
		return -1;
	const char *wrong = check_tail(&tail, file_size, trust);
	return wrong ? refuse(err, signature->image, wrong) : read_table(signature, &tail, err);
}

bool signature_is_there(int fd, uint64_t file_size)
{
	uint8_t magic[sizeof(((struct signature_tail *)NULL)->magic)];
	return file_size >= sizeof(struct signature_tail) &&
	       read_exactly(fd, magic, sizeof(magic), file_size - sizeof(struct signature_tail), "", NULL) == 0 &&
	       memcmp(magic, MAGIC, sizeof(magic)) == 0;
}

int signature_open(struct signature **out, int fd, uint64_t file_size, const char *image,
		   const struct trust *trust, struct fsnap_error *err)
{
	*out = NULL;
	if (trust->n == 0)
		return 0;
	struct signature *signature = calloc(1, sizeof(*signature));
	if (!signature || sodium_init() < 0) {
		free(signature);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its signature", image);
	}
	signature->fd = fd;
	signature->image = strdup(image);
	if (open_signed(signature, file_size, trust, err) < 0) {
		signature_close(signature);
		return -1;
	}
	*out = signature;
	return 0;
}

void signature_close(struct signature *signature)
{
	if (!signature)
		return;
	free(signature->hashes);
	free(signature->seen);
	free(signature->image);
	free(signature);
}

int signature_check(struct signature *signature, uint64_t offset, uint64_t length, struct fsnap_error *err)
{
	if (!signature || length == 0)
		return 0;
	if (offset > signature->covered || length > signature->covered - offset)
		return refuse(err, signature->image, "its signature does not cover all of it");
	for (uint64_t chunk = offset / CHUNK; chunk <= (offset + length - 1) / CHUNK; chunk++) {
		uint8_t hash[HASH];
		if (atomic_load_explicit(&signature->seen[chunk], memory_order_acquire))
			continue;
		if (hash_chunk(signature->fd, chunk, signature->covered, hash, signature->image, err) < 0)
			return -1;
		if (sodium_memcmp(hash, signature->hashes[chunk], HASH) != 0)
			return refuse(err, signature->image, "it has been altered since it was signed");
		atomic_store_explicit(&signature->seen[chunk], true, memory_order_release);
	}
	return 0;
}

/* --- signing ------------------------------------------------------------------------------ */

static int write_exactly(int fd, const void *bytes, uint64_t length, uint64_t offset, const char *image,
			 struct fsnap_error *err)
{
	const char *from = bytes;
	while (length) {
		ssize_t n = pwrite(fd, from, length, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return store_fail(err, errno, "image %s: writing its signature", image);
		from += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

static int hash_all(int fd, uint64_t covered, uint8_t (*hashes)[HASH], const char *image, struct fsnap_error *err)
{
	for (uint64_t chunk = 0; chunk < chunks(covered); chunk++)
		if (hash_chunk(fd, chunk, covered, hashes[chunk], image, err) < 0)
			return -1;
	return 0;
}

/* The tail last: what is cut off before has no signature, and is the image that it was. */
static int write_signature(int fd, const struct signature_tail *tail, uint8_t (*hashes)[HASH], const char *image,
			   struct fsnap_error *err)
{
	uint64_t bytes = chunks(tail->covered) * HASH;
	if (ftruncate(fd, (off_t)tail->covered) < 0)
		return store_fail(err, errno, "image %s: writing its signature", image);
	if (write_exactly(fd, hashes, bytes, tail->table, image, err) < 0 ||
	    write_exactly(fd, tail, sizeof(*tail), align_up(tail->table + bytes, sizeof(*tail)), image, err) < 0)
		return -1;
	return fsync(fd) < 0 ? store_fail(err, errno, "image %s: writing its signature", image) : 0;
}

int signature_make(int fd, uint64_t covered, const uint8_t key[KEY_SECRET], const char *image,
		   struct fsnap_error *err)
{
	struct signature_tail tail = { .magic = MAGIC, .version = VERSION, .chunk = CHUNK, .covered = covered,
				       .table = align_up(covered, sizeof(tail)) };
	cleanup_free uint8_t(*hashes)[HASH] = calloc(chunks(covered), HASH);
	if (!hashes || sodium_init() < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its signature", image);
	if (hash_all(fd, covered, hashes, image, err) < 0)
		return -1;
	crypto_generichash(tail.table_hash, HASH, (const uint8_t *)hashes, chunks(covered) * HASH, NULL, 0);
	crypto_sign_ed25519_sk_to_pk(tail.key, key);
	crypto_sign_detached(tail.signature, NULL, (const uint8_t *)&tail, SIGNED, key);
	int result = write_signature(fd, &tail, hashes, image, err);
	if (result < 0 && ftruncate(fd, (off_t)covered) < 0)
		return -1; /* what is behind the image is no signature then, either */
	return result;
}

/* Each with the right to write, which only its owner has. */
int image_sign(struct image *image, const uint8_t *secret, struct fsnap_error *err)
{
	if (image_verify_blocks(image, 0, image_blocks(image), err) < 0)
		return -1;
	for (unsigned i = 0; i < image->n_files; i++) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", image->files[i]->fd);
		cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return store_fail(err, errno, "image %s: opening it for writing", image->name);
		if (signature_make(fd, image->files[i]->slot.length, secret, image->name, err) < 0)
			return -1;
	}
	return 0;
}
