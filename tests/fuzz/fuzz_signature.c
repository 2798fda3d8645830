/*
 * fuzz_signature.c - a signed image, changed as an input says: its tail, the table of hashes, its length.
 *
 * Shown: with a key to be trusted, what was changed by somebody who does not have its secret half is refused, and what
 * is not changed is opened; and who has it can say what he likes of lengths and places: nothing is read beyond the file.
 * The input is a struct change, whose numbers are added to the right ones, then bytes that are added to the table.
 */
#include <fcntl.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "store/layout.h"
#include "store/scope.h"
#include "store/signature.h"

#define CHUNK (1ull << 20)
#define CHUNKS 4u /* more than the image has */

struct change {
	uint8_t is_signed; /* once more, by the key that is trusted */
	uint8_t magic, key, table_hash, signature;
	uint8_t zero[3];
	uint32_t version, chunk;
	uint64_t covered, table, length;
};

/* store/signature.c */
struct tail {
	uint8_t magic[8];
	uint32_t version, chunk;
	uint64_t covered, table;
	uint8_t key[KEY_PUBLIC], table_hash[32], signature[crypto_sign_BYTES];
	uint8_t zero[4096 - 24 - 8 - KEY_PUBLIC - 32 - crypto_sign_BYTES];
};
static_assert(sizeof(struct tail) == 4096, "on-disk size");

static struct {
	char path[64];
	uint64_t covered;
	uint8_t hashes[CHUNKS][32], secret[KEY_SECRET];
	struct trust trust;
} world;

static void forget(void)
{
	unlink(world.path);
	trust_free(&world.trust);
}

static void hash_chunks(void)
{
	cleanup_fd int fd = open(world.path, O_RDONLY | O_CLOEXEC);
	cleanup_free uint8_t *bytes = malloc(CHUNK);
	if (fd < 0 || !bytes)
		abort();
	for (unsigned i = 0; i * CHUNK < world.covered; i++) {
		ssize_t n = pread(fd, bytes, CHUNK, (off_t)(i * CHUNK));
		if (i == CHUNKS || n <= 0)
			abort();
		crypto_generichash(world.hashes[i], sizeof(world.hashes[i]), bytes, (size_t)n, NULL, 0);
	}
}

static void make_world(void)
{
	struct fuzz_image image = { .uuid = { 1 } };
	struct layout_slot slot;
	static const uint8_t seed[crypto_sign_SEEDBYTES] = { 7 };
	if (world.path[0])
		return;
	snprintf(world.path, sizeof(world.path), "/dev/shm/fsnap-fuzz.%d.signed", getpid());
	fuzz_image_at(world.path, &image, &slot);
	world.covered = slot.length;
	world.trust.keys = malloc(sizeof(*world.trust.keys));
	if (sodium_init() < 0 || !world.trust.keys)
		abort();
	world.trust.n = 1;
	crypto_sign_seed_keypair(world.trust.keys[0], world.secret, seed);
	hash_chunks();
	atexit(forget);
}

static void write_end(const struct change *change, const struct tail *tail, const void *table, size_t table_length)
{
	cleanup_fd int fd = open(world.path, O_WRONLY | O_CLOEXEC);
	uint64_t end = world.covered + table_length, length = end + sizeof(*tail);
	uint64_t cut = change->length % (2 * sizeof(*tail)); /* less: it is cut; more: something follows */
	if (fd < 0 || ftruncate(fd, (off_t)world.covered) < 0 ||
	    pwrite(fd, table, table_length, (off_t)world.covered) != (ssize_t)table_length ||
	    pwrite(fd, tail, sizeof(*tail), (off_t)end) != sizeof(*tail) ||
	    ftruncate(fd, (off_t)(cut < sizeof(*tail) ? length - cut : length + cut - sizeof(*tail) + 1)) < 0)
		abort();
}

static void sign(struct tail *tail)
{
	crypto_sign_detached(tail->signature, NULL, (const uint8_t *)tail, offsetof(struct tail, signature),
			     world.secret);
}

/* Whether anything has changed that is signed. */
static bool make_tail(struct tail *tail, const struct change *change, const uint8_t *table, size_t length)
{
	*tail = (struct tail){ .magic = { 'F', 'S', 'N', 'A', 'P', 'S', 'I', 'G' }, .version = 1, .chunk = CHUNK,
			       .covered = world.covered, .table = world.covered };
	memcpy(tail->key, world.trust.keys[0], sizeof(tail->key));
	crypto_generichash(tail->table_hash, sizeof(tail->table_hash), (const uint8_t *)world.hashes, length, NULL, 0);
	sign(tail);
	struct tail before = *tail;
	tail->magic[0] += change->magic;
	tail->version += change->version;
	tail->chunk += change->chunk;
	tail->covered += change->covered;
	tail->table += change->table;
	tail->key[0] += change->key;
	tail->table_hash[0] += change->table_hash;
	if (change->is_signed & 1) { /* the hash of what the table is now, too */
		crypto_generichash(tail->table_hash, sizeof(tail->table_hash), table, length, NULL, 0);
		tail->table_hash[0] += change->table_hash;
		sign(tail);
	}
	tail->signature[0] += change->signature;
	return memcmp(&before, tail, sizeof(before)) != 0 || memcmp(table, world.hashes, length) != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct change change;
	struct tail tail;
	uint8_t table[sizeof(world.hashes)];
	struct fsnap_error err = { 0 };
	if (length < sizeof(change))
		return 0;
	make_world();
	memcpy(&change, bytes, sizeof(change));
	bytes += sizeof(change);
	length -= sizeof(change);
	size_t used = (size_t)((world.covered + CHUNK - 1) / CHUNK) * sizeof(world.hashes[0]);
	memcpy(table, world.hashes, used);
	for (size_t i = 0; i < used && i < length; i++)
		table[i] += bytes[i];
	bool altered = make_tail(&tail, &change, table, used);
	write_end(&change, &tail, table, used);
	struct image *image = image_open_signed(NULL, world.path, &world.trust, &err);
	if (image && altered && !(change.is_signed & 1))
		abort();
	if (!image && !altered && change.length % (2 * sizeof(tail)) == 0)
		abort();
	if (!fuzz_refused(image ? 0 : -1, &err))
		fuzz_refused(image_verify_blocks(image, 0, image_blocks(image), &err), &err);
	image_close(image);
	return 0;
}
