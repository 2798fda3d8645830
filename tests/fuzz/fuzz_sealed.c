/*
 * fuzz_sealed.c - any bytes as the tables and blocks of an image that is encrypted with the key of whoever opens it, and
 * any bytes as what its head says of that.
 *
 * Shown: what somebody with the key has encrypted is trusted no more than what is not encrypted; whoever has no key
 * can change nothing; no image makes us work on a passphrase, or take memory for it, beyond the bounds of store/secret.c.
 * The input is a struct about, then metadata, hints, page index, then the blocks, all before they are encrypted.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coded.h"
#include "store/scope.h"

struct about {
	uint32_t records, hint_records;
	uint32_t metadata, hints, index; /* bytes */
	uint32_t kdf_passes;
	uint64_t kdf_memory;
	uint8_t cipher, codec;
	uint8_t wrong;	  /* enum wrong */
	uint8_t spoilt;	  /* added to what is wrong */
	uint8_t kdf, zero[3];
	struct fuzz_cut cut[FUZZ_BLOCKS];
};

/* Bits: what somebody without the key has changed. */
enum wrong { MAC = 1, CHECK = 2, TABLE_TAG = 4, FRAME_TAG = 8, SALT = 16, CODEC = 32, TABLE = 64, FRAME = 128 };

#define TABLES LAYOUT_SEALED

static char key[64], words[64], passphrase[80];

static void forget(void)
{
	unlink(key);
	unlink(words);
}

static void write_file(const char *path, const char *text)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
}

static struct keyring *ring(void)
{
	static struct keyring ring;
	if (ring.source)
		return &ring;
	snprintf(key, sizeof(key), "/dev/shm/fsnap-fuzz.%d.key", getpid());
	snprintf(words, sizeof(words), "/dev/shm/fsnap-fuzz.%d.words", getpid());
	snprintf(passphrase, sizeof(passphrase), "passphrase:%s", words);
	atexit(forget);
	write_file(key, "fsnap-image-key-1 QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n");
	write_file(words, "any words\n");
	ring.source = key;
	return &ring;
}

static struct fuzz_table take(const uint8_t **bytes, size_t *length, size_t want)
{
	struct fuzz_table table = { *bytes, want < *length ? want : *length };
	*bytes += table.length;
	*length -= table.length;
	return table;
}

/* In place of its bytes, encrypted ones, the caller's to free. */
static void encrypt_table(const struct cipher *cipher, const struct about *about, struct layout_coding *coding,
			  unsigned which, struct fuzz_table *table, uint8_t **mine)
{
	*mine = malloc(table->length + 1);
	if (!*mine)
		abort();
	cipher_encrypt(cipher, CIPHER_TABLE(which), 0, table->length, *mine, table->bytes, table->length,
		       coding->tag[which]);
	if (about->wrong & TABLE_TAG)
		coding->tag[which][0] += about->spoilt;
	if ((about->wrong & TABLE) && table->length)
		**mine += about->spoilt;
	table->bytes = *mine;
}

static void encrypt_frames(const struct cipher *cipher, const struct about *about, struct layout_frame *frames,
			   uint8_t *to, const uint8_t *from)
{
	for (unsigned i = 0; i < FUZZ_BLOCKS; i++) {
		struct layout_frame *frame = &frames[i];
		cipher_encrypt(cipher, i, frame->codec, layout_block_pages(i, FUZZ_CODED_PAGES) * STORE_PAGE, to, from,
			       frame->length, frame->tag);
		if (about->wrong & FRAME_TAG)
			frame->tag[0] += about->spoilt;
		if (about->wrong & CODEC)
			frame->codec = (frame->codec + about->spoilt) % 4;
		if ((about->wrong & FRAME) && frame->length)
			*to += about->spoilt;
		to += frame->length;
		from += frame->length;
	}
}

/* Work that is within bounds takes too long here, and is the same for all. */
static void ask_for_work(const struct about *about, struct layout_coding *coding)
{
	coding->kdf = about->kdf;
	coding->kdf_passes = about->kdf_passes;
	coding->kdf_memory = about->kdf_memory;
	if (about->kdf_passes >= 1 && about->kdf_passes <= 16 && about->kdf_memory <= 1u << 30) {
		coding->kdf_passes = 1;
		coding->kdf_memory = 8192;
	}
}

/* Nobody without the key gets anything accepted; and with the right one, what is right is opened. */
static void judge(const struct about *about, const char *path)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(NULL, path, &err);
	bool altered = (about->wrong & (MAC | CHECK | TABLE_TAG | SALT)) && about->spoilt;
	if (image && (altered || about->kdf))
		abort();
	fuzz_refused(image ? 0 : -1, &err);
	image_close(image);
	unsetenv("FSNAP_KEY"); /* no key at all */
	err = (struct fsnap_error){ 0 };
	if (image_open(NULL, path, &err) || !fuzz_refused(-1, &err))
		abort();
}

static void look(const struct about *about, struct cipher *cipher, struct layout_coding *coding, const uint8_t *bytes,
		 size_t length)
{
	struct fuzz_image image = { .records = about->records, .hint_records = about->hint_records };
	struct fuzz_table *table[TABLES] = { &image.metadata, &image.index, &image.hints };
	struct layout_frame frames[FUZZ_BLOCKS];
	uint8_t *mine[TABLES];
	image.metadata = take(&bytes, &length, about->metadata);
	image.hints = take(&bytes, &length, about->hints);
	image.index = take(&bytes, &length, about->index / sizeof(struct page_run) * sizeof(struct page_run));
	for (unsigned i = 0; i < TABLES; i++)
		encrypt_table(cipher, about, coding, i, table[i], &mine[i]);
	cleanup_free uint8_t *stored = malloc(length + 1);
	if (!stored)
		abort();
	fuzz_cut_frames(frames, about->cut, length);
	encrypt_frames(cipher, about, frames, stored, bytes);
	fuzz_sum_frames(frames, stored);
	coding->codec = about->codec % 4;
	coding->stored = length;
	coding->check[0] += about->wrong & CHECK ? about->spoilt : 0;
	coding->salt[0] += about->wrong & SALT ? about->spoilt : 0;
	ask_for_work(about, coding);
	struct fuzz_coded coded = { .coding = *coding, .frames = frames, .bytes = stored, .cipher = cipher,
				    .wrong = about->wrong & MAC ? about->spoilt : 0 };
	image.coded = &coded;
	const char *path = fuzz_image_file(&image);
	setenv("FSNAP_KEY", about->kdf ? passphrase : key, 1);
	fuzz_look_into(path);
	judge(about, path);
	for (unsigned i = 0; i < TABLES; i++)
		free(mine[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct about about;
	struct fsnap_error err = { 0 };
	static const uint8_t uuid[16];
	if (length < sizeof(about))
		return 0;
	memcpy(&about, bytes, sizeof(about));
	struct layout_coding coding = { .cipher = about.cipher % 2 ? STORE_XCHACHA20 : STORE_AES256 };
	about.kdf &= 1;
	struct cipher *cipher = cipher_new(ring(), &coding, uuid, &err);
	if (!cipher && coding.cipher == STORE_AES256)
		return 0; /* a processor without the instructions */
	if (!cipher)
		abort();
	look(&about, cipher, &coding, bytes + sizeof(about), length - sizeof(about));
	cipher_free(cipher);
	return 0;
}
