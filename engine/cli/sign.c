/*
 * sign.c - fsnap keygen, fsnap sign: who vouches for an image.
 */
#include <string.h>
#include <strings.h>

#include "engine/cli/catalogue.h"
#include "store/signature.h"

/* --secret */
static int make_image_key(const struct cli *cli, const char *path, struct fsnap_error *err)
{
	if (key_make_image(path, err))
		return -1;
	if (cli->json) {
		struct json json = output_json();

		json_object(&json);
		json_string(json_key(&json, "image_key"), path);
		json_close(&json);
		json_finish(&json);
	} else if (!cli->quiet) {
		printf("%s: keep it; without it nobody reads what `fsnap dump --encrypt %s` makes\n", path, path);
	}
	return EXIT_SUCCESS;
}

int cli_keygen(const struct cli *cli, struct fsnap_error *err)
{
	const char *path = cli->words[0];

	if (cli->secret)
		return make_image_key(cli, path, err);
	if (key_make(path, err))
		return -1;
	if (cli->json) {
		struct json json = output_json();
		char public[4096];

		snprintf(public, sizeof(public), "%s.pub", path);
		json_object(&json);
		json_string(json_key(&json, "secret"), path);
		json_string(json_key(&json, "public"), public);
		json_close(&json);
		json_finish(&json);
	} else if (!cli->quiet) {
		printf("%s: keep it; `fsnap sign --key %s IMAGE` signs with it\n", path, path);
		printf("%s.pub: put it into /etc/fsnap/trusted where its images may be restored\n", path);
	}
	return EXIT_SUCCESS;
}

static int sign_one(struct catalogue *catalogue, const char *name, const uint8_t *key, struct fsnap_error *err)
{
	/* Not signed yet, or by somebody else: nobody needs to be trusted for this. */
	struct trust nobody = { 0 };
	struct image *image = image_open_signed(catalogue->store, name, &nobody, err);

	if (!image)
		return -1;
	int result = image_sign(image, key, err);
	image_close(image);
	return result;
}

static int sign_all(struct catalogue *catalogue, char **names, int n, const uint8_t *key, struct fsnap_error *err)
{
	for (int i = 0; i < n; i++)
		if (sign_one(catalogue, names[i], key, err))
			return -1;
	return EXIT_SUCCESS;
}

int cli_sign(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };
	uint8_t key[KEY_SECRET];

	if (!cli->key) {
		fail(err, FSNAP_E_USAGE, 0, "fsnap sign needs --key FILE");
		return error_hint(err, "`fsnap keygen FILE` makes one");
	}
	if (catalogue_open_store(&catalogue, cli, STORE_READ, err) || key_read_secret(cli->key, key, err))
		return -1;
	int result = sign_all(&catalogue, cli->words, cli->n_words, key, err);
	explicit_bzero(key, sizeof(key));
	if (result == 0 && cli->json)
		printf("{\"signed\":%d}\n", cli->n_words);
	else if (result == 0 && !cli->quiet)
		printf("%d image%s signed\n", cli->n_words, cli->n_words == 1 ? "" : "s");
	return result;
}
