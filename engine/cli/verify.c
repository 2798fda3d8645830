/*
 * verify.c - fsnap verify: opening an image checks everything but its pages and its
 * hints; they are checked here, the pages block by block.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/cli/catalogue.h"
#include "store/signature.h"

#define STEP 16u /* blocks between two looks at the clock */

/* What was found about one image. */
struct verdict {
	char name[FSNAP_NAME_MAX + 1];
	uint64_t pages;
	bool sealed; /* encrypted, and no key is given: as it was written, as far as that shows */
	struct fsnap_error err;
};

static int check_pages(struct image *image, struct progress *progress, struct fsnap_error *err)
{
	uint64_t blocks = image_blocks(image);

	for (uint64_t first = 0; first < blocks; first += STEP) {
		uint64_t n = blocks - first < STEP ? blocks - first : STEP;

		progress_update(progress, "verify", first, blocks);
		if (image_verify_blocks(image, first, n, err))
			return -1;
	}
	return 0;
}

/* Where nobody has a key here, that it can be restored is not known; that it is undamaged is. */
static void check_sealed(struct catalogue *catalogue, const char *name, const struct trust *trust,
			 struct verdict *verdict)
{
	struct fsnap_error err = { 0 };

	if (verdict->err.code != FSNAP_E_IMAGE_KEY || getenv("FSNAP_KEY"))
		return;
	verdict->sealed = image_verify_stored(catalogue->store, name, trust->n ? trust : NULL, &verdict->pages, &err) == 0;
	verdict->err = err;
}

static void check(struct catalogue *catalogue, const char *name, const struct trust *trust,
		  struct verdict *verdict)
{
	struct progress progress = { 0 };
	struct image *image = trust->n ? image_open_signed(catalogue->store, name, trust, &verdict->err) :
					 image_open(catalogue->store, name, &verdict->err);

	snprintf(verdict->name, sizeof(verdict->name), "%s", name ? name : "");
	if (!image) {
		check_sealed(catalogue, name, trust, verdict);
		return;
	}
	snprintf(verdict->name, sizeof(verdict->name), "%s", image_name(image));
	verdict->pages = image_pages(image) + image_referred(image);
	if (check_pages(image, &progress, &verdict->err) == 0)
		image_hints(image, &verdict->err);
	progress_end(&progress);
	image_close(image);
}

static void print_json(struct json *json, const struct verdict *verdict)
{
	json_object(json);
	json_string(json_key(json, "name"), verdict->name);
	json_bool(json_key(json, "good"), !verdict->err.code);
	if (verdict->sealed)
		json_bool(json_key(json, "sealed"), true);
	json_u64(json_key(json, "page_bytes"), verdict->pages * STORE_PAGE);
	if (verdict->err.code)
		output_json_error(json, &verdict->err);
	json_close(json);
}

static void print(const struct cli *cli, const struct verdict *verdict)
{
	if (verdict->err.code)
		printf("%s: %sdamaged%s: %s\n", verdict->name, style_bad(stdout),
		       style_end(stdout), verdict->err.message);
	else if (!cli->quiet)
		printf("%s: good, %s of pages%s\n", verdict->name, text_bytes(verdict->pages * STORE_PAGE).s,
		       verdict->sealed ? "; encrypted: what it holds is not known without its key" : "");
}

static int verify_all(const struct cli *cli, struct catalogue *catalogue, const struct trust *trust)
{
	int status = EXIT_SUCCESS;
	struct json json;

	if (cli->json) {
		json = output_json();
		json_object(&json);
		json_array(json_key(&json, "images"));
	}
	for (size_t i = 0; i < catalogue->count; i++) {
		struct verdict verdict = { 0 };

		check(catalogue, catalogue->entries[i].name, trust, &verdict);
		if (cli->json)
			print_json(&json, &verdict);
		else
			print(cli, &verdict);
		if (verdict.err.code)
			status = exit_status_of(cli, verdict.err.code);
	}
	if (cli->json) {
		json_close(&json);
		json_close(&json);
		json_finish(&json);
	}
	return status;
}

int cli_verify(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };
	const char *name = cli->n_words ? cli->words[0] : NULL;
	struct verdict verdict = { 0 };
	uint8_t key[1][KEY_PUBLIC];
	struct trust trust = { key, cli->key != NULL };

	if (cli->key && key_read_public(cli->key, key[0], err))
		return -1;
	if (cli->all && name)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap verify takes an image or --all, not both");
	if (cli->all ? catalogue_open(&catalogue, cli, STORE_READ, err) :
		       catalogue_open_store(&catalogue, cli, STORE_READ, err))
		return -1;
	if (cli->all)
		return verify_all(cli, &catalogue, &trust);
	if (!catalogue.store && !(name && strchr(name, '/')))
		return catalogue_missing(&catalogue, name, err);

	check(&catalogue, name, &trust, &verdict);
	if (verdict.err.code) {
		*err = verdict.err;
		return -1;
	}
	if (cli->json) {
		struct json json = output_json();
		print_json(&json, &verdict);
		json_finish(&json);
	} else {
		print(cli, &verdict);
	}
	return EXIT_SUCCESS;
}
