#include <stdlib.h>
#include <string.h>

#include "engine/cli/catalogue.h"

int catalogue_open_store(struct catalogue *catalogue, const struct cli *cli, enum store_mode mode,
			 struct fsnap_error *err)
{
	struct fsnap_error why = { 0 };

	if (cli->store)
		snprintf(catalogue->dir, sizeof(catalogue->dir), "%s", cli->store);
	else if (fsnap_default_store(catalogue->dir, sizeof(catalogue->dir), err))
		return -1;
	catalogue->store = store_open(catalogue->dir, mode, &why);
	if (catalogue->store || (why.code == FSNAP_E_STORE_MISSING && !cli->store))
		return 0;
	if (err)
		*err = why;
	return -1;
}

int catalogue_open(struct catalogue *catalogue, const struct cli *cli, enum store_mode mode,
		   struct fsnap_error *err)
{
	if (catalogue_open_store(catalogue, cli, mode, err))
		return -1;
	if (!catalogue->store)
		return 0;
	return store_list(catalogue->store, &catalogue->entries, &catalogue->count, err);
}

void catalogue_close(struct catalogue *catalogue)
{
	free(catalogue->entries);
	if (catalogue->store)
		store_close(catalogue->store);
}

bool catalogue_holds(const struct catalogue *catalogue, const char *name)
{
	for (size_t i = 0; i < catalogue->count; i++)
		if (!strcmp(catalogue->entries[i].name, name))
			return true;
	return false;
}

int catalogue_missing(const struct catalogue *catalogue, const char *name,
		      struct fsnap_error *err)
{
	if (name)
		fail(err, FSNAP_E_IMAGE_MISSING, 0, "there is no image %s in %s", name,
		     catalogue->dir);
	else
		fail(err, FSNAP_E_IMAGE_MISSING, 0, "there is no image in %s", catalogue->dir);
	return error_hint(err, catalogue->count ? "fsnap list shows those there are" :
						  "make one: fsnap dump -t PID");
}

struct image *catalogue_open_image(struct catalogue *catalogue, const struct cli *cli, struct fsnap_error *err)
{
	const char *name = cli->n_words ? cli->words[0] : NULL;

	if (catalogue_open_store(catalogue, cli, STORE_READ, err))
		return NULL;
	if (!catalogue->store && !(name && strchr(name, '/'))) {
		catalogue_missing(catalogue, name, err);
		return NULL;
	}
	return image_open(catalogue->store, name, err);
}
