/*
 * rm.c - fsnap rm
 */
#include <stdlib.h>

#include "engine/cli/catalogue.h"

/* All or nothing, as far as names go: a slip in the third must not cost the first two. */
static int check_names(const struct cli *cli, const struct catalogue *catalogue,
		       struct fsnap_error *err)
{
	for (int i = 0; i < cli->n_words; i++) {
		if (store_check_name(cli->words[i], err))
			return -1;
		if (!catalogue_holds(catalogue, cli->words[i]))
			return catalogue_missing(catalogue, cli->words[i], err);
	}
	return 0;
}

/* Packets that were held back for it would wait for nobody. One that cannot be read is removed, too. */
static int remove_image(struct catalogue *catalogue, const char *name, struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };

	fsnap_give_up_connections(catalogue->dir, name, &ignored);
	return store_remove(catalogue->store, name, err);
}

static int remove_images(const struct cli *cli, struct catalogue *catalogue,
			 struct fsnap_error *err)
{
	if (cli->all) {
		for (size_t i = 0; i < catalogue->count; i++)
			if (remove_image(catalogue, catalogue->entries[i].name, err))
				return -1;
		return 0;
	}
	for (int i = 0; i < cli->n_words; i++)
		if (remove_image(catalogue, cli->words[i], err))
			return -1;
	return 0;
}

static void print_json(const struct cli *cli, const struct catalogue *catalogue, int64_t freed)
{
	struct json json = output_json();

	json_object(&json);
	json_array(json_key(&json, "removed"));
	for (size_t i = 0; cli->all && i < catalogue->count; i++)
		json_string(&json, catalogue->entries[i].name);
	for (int i = 0; i < cli->n_words; i++)
		json_string(&json, cli->words[i]);
	json_close(&json);
	json_u64(json_key(&json, "freed_bytes"), (uint64_t)freed);
	json_close(&json);
	json_finish(&json);
}

static void print(const struct cli *cli, const struct catalogue *catalogue, int64_t freed)
{
	size_t removed = cli->all ? catalogue->count : (size_t)cli->n_words;

	if (removed || !cli->trim)
		printf("%s removed\n", text_count(removed, "image", "images").s);
	if (cli->trim)
		printf("%s given back to the file system\n", text_bytes((uint64_t)freed).s);
}

int cli_rm(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };
	int64_t freed = 0;

	if (cli->all && cli->n_words)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap rm takes names or --all, not both");
	if (!cli->all && !cli->n_words && !cli->trim) {
		fail(err, FSNAP_E_USAGE, 0, "fsnap rm needs the name of an image");
		return error_hint(err, "fsnap list shows them; --all means every image");
	}
	/* Looking first: a wrong name must not create the store it is not in. */
	if (catalogue_open(&catalogue, cli, STORE_READ, err) || check_names(cli, &catalogue, err))
		return -1;
	if (catalogue.store) {
		store_close(catalogue.store);
		catalogue.store = store_open(catalogue.dir, STORE_WRITE, err);
		if (!catalogue.store || remove_images(cli, &catalogue, err))
			return -1;
		/* What was being read when its last image went, that removal has left. */
		store_collect(catalogue.store, NULL);
		if (cli->trim && (freed = store_trim(catalogue.store, err)) < 0)
			return -1;
	}
	if (cli->json)
		print_json(cli, &catalogue, freed);
	else if (!cli->quiet)
		print(cli, &catalogue, freed);
	return EXIT_SUCCESS;
}
