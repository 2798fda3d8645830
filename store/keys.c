/* keys.c - key files, and whose signatures count on this machine. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/scope.h"
#include "store/signature.h"

#define TRUSTED "/etc/fsnap/trusted"
#define SUFFIX ".pub"
#define PUBLIC "fsnap-public-key-1"
#define SECRET "fsnap-secret-key-1"
#define IMAGE "fsnap-image-key-1"
#define LINE_MAX_KEY 512
#define BASE64 sodium_base64_VARIANT_ORIGINAL

/* --- files ------------------------------------------------------------------------------ */

static int not_a_key(const char *path, const char *why, struct fsnap_error *err)
{
	fail(err, FSNAP_E_USAGE, 0, "%s: %s", path, why);
	return error_hint(err, "`fsnap keygen FILE` makes FILE, to sign with, and FILE" SUFFIX
			       ", to be trusted; `fsnap keygen --secret FILE` one to encrypt with");
}

/* "WHAT BASE64 comment" */
static int parse(const char *path, const char *line, const char *what, uint8_t *key, size_t size,
		 struct fsnap_error *err)
{
	size_t length = strlen(what), seen;
	const char *begin = line + length + 1;
	if (strncmp(line, what, length) != 0 || line[length] != ' ')
		return not_a_key(path, strcmp(what, PUBLIC) == 0 ? "not a public key of fsnap" :
				       strcmp(what, SECRET) == 0 ? "not a secret key of fsnap" :
								   "not a key that images are encrypted with", err);
	if (sodium_base642bin(key, size, begin, strcspn(begin, " \n"), NULL, &seen, NULL, BASE64) < 0 || seen != size)
		return not_a_key(path, "a damaged key", err);
	return 0;
}

/* refused: what others may not be able to do. */
static int read_key(const char *path, const char *what, mode_t refused, uint8_t *key, size_t size,
		    struct fsnap_error *err)
{
	char line[LINE_MAX_KEY] = "";
	struct stat st;
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, error_of_name(errno), errno, "%s: opening the key", path);
	/* Who may write here decides whom we believe. */
	if (!S_ISREG(st.st_mode) || (st.st_mode & refused) || (st.st_uid != 0 && st.st_uid != geteuid()))
		return not_a_key(path, refused & 044 ? "others may read it" : "others may write to it", err);
	ssize_t n = read(fd, line, sizeof(line) - 1);
	if (n < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "%s: reading the key", path);
	int result = sodium_init() < 0 ? fail(err, FSNAP_E_SYSTEM, 0, "libsodium does not start") :
					 parse(path, line, what, key, size, err);
	sodium_memzero(line, sizeof(line));
	return result;
}

int key_read_public(const char *path, uint8_t key[KEY_PUBLIC], struct fsnap_error *err)
{
	return read_key(path, PUBLIC, 022, key, KEY_PUBLIC, err);
}

int key_read_secret(const char *path, uint8_t key[KEY_SECRET], struct fsnap_error *err)
{
	return read_key(path, SECRET, 022, key, KEY_SECRET, err);
}

int key_read_image(const char *path, uint8_t key[KEY_IMAGE], struct fsnap_error *err)
{
	return read_key(path, IMAGE, 077, key, KEY_IMAGE, err);
}

static int write_key(const char *path, mode_t mode, const char *what, const uint8_t *key, size_t size,
		     struct fsnap_error *err)
{
	char text[LINE_MAX_KEY], line[2 * LINE_MAX_KEY];
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return fail(err, error_of_name(errno), errno, "%s: making the key", path);
	sodium_bin2base64(text, sizeof(text), key, size, BASE64);
	int length = snprintf(line, sizeof(line), "%s %s\n", what, text);
	bool written = write(fd, line, (size_t)length) == length && fsync(fd) == 0;
	int sys = errno;
	sodium_memzero(text, sizeof(text));
	sodium_memzero(line, sizeof(line));
	if (close(fd) == 0 && written)
		return 0;
	unlink(path);
	return fail(err, FSNAP_E_SYSTEM, sys, "%s: writing the key", path);
}

int key_make_image(const char *path, struct fsnap_error *err)
{
	uint8_t key[KEY_IMAGE];
	if (sodium_init() < 0)
		return fail(err, FSNAP_E_SYSTEM, 0, "libsodium does not start");
	randombytes_buf(key, sizeof(key));
	int result = write_key(path, 0600, IMAGE, key, sizeof(key), err);
	sodium_memzero(key, sizeof(key));
	return result;
}

int key_make(const char *path, struct fsnap_error *err)
{
	uint8_t public[KEY_PUBLIC], secret[KEY_SECRET];
	char beside[4096];
	if (sodium_init() < 0)
		return fail(err, FSNAP_E_SYSTEM, 0, "libsodium does not start");
	if ((size_t)snprintf(beside, sizeof(beside), "%s" SUFFIX, path) >= sizeof(beside))
		return fail(err, FSNAP_E_USAGE, ENAMETOOLONG, "%s", path);
	crypto_sign_keypair(public, secret);
	int result = write_key(path, 0600, SECRET, secret, sizeof(secret), err);
	sodium_memzero(secret, sizeof(secret));
	if (result == 0 && write_key(beside, 0644, PUBLIC, public, sizeof(public), err) < 0) {
		unlink(path);
		result = -1;
	}
	return result;
}

/* --- whom to trust ------------------------------------------------------------------------ */

static int add_key(struct trust *trust, const char *path, struct fsnap_error *err)
{
	uint8_t(*keys)[KEY_PUBLIC] = realloc(trust->keys, (trust->n + 1) * sizeof(*keys));
	if (!keys)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "trusted keys");
	trust->keys = keys;
	if (key_read_public(path, keys[trust->n], err) < 0)
		return -1;
	trust->n++;
	return 0;
}

static int add_directory(struct trust *trust, const char *path, bool must, struct fsnap_error *err)
{
	cleanup_dir DIR *dir = opendir(path);
	if (!dir && errno == ENOENT && !must)
		return 0;
	if (!dir)
		return fail(err, errno == EACCES || errno == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_SYSTEM, errno,
			    "trusted keys: %s", path);
	for (struct dirent *entry; (errno = 0, entry = readdir(dir));) {
		char file[4096];
		size_t length = strlen(entry->d_name), suffix = strlen(SUFFIX);
		if (entry->d_name[0] == '.' || length <= suffix ||
		    strcmp(entry->d_name + length - suffix, SUFFIX) != 0)
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		if (add_key(trust, file, err) < 0)
			return -1;
	}
	/* Who sees no keys because he could not look would trust everybody. */
	return errno ? fail(err, FSNAP_E_SYSTEM, errno, "trusted keys: %s", path) : 0;
}

int trust_load(struct trust *trust, struct fsnap_error *err)
{
	const char *more = secure_getenv("FSNAP_TRUSTED");
	*trust = (struct trust){ 0 };
	if (add_directory(trust, TRUSTED, false, err) == 0 &&
	    (!more || add_directory(trust, more, true, err) == 0)) {
		if (!more || trust->n)
			return 0;
		fail(err, FSNAP_E_USAGE, 0, "trusted keys: %s holds no *" SUFFIX " file", more);
		error_hint(err, "put a public key there, or unset FSNAP_TRUSTED");
	}
	trust_free(trust);
	return -1;
}

int trust_copy(struct trust *trust, const struct trust *from, struct fsnap_error *err)
{
	*trust = (struct trust){ 0 };
	if (from->n == 0)
		return 0;
	trust->keys = malloc(from->n * sizeof(*trust->keys));
	if (!trust->keys)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "trusted keys");
	memcpy(trust->keys, from->keys, from->n * sizeof(*trust->keys));
	trust->n = from->n;
	return 0;
}

void trust_free(struct trust *trust)
{
	free(trust->keys);
	*trust = (struct trust){ 0 };
}
