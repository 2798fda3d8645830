/*
 * list.c - fsnap list
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/cli/catalogue.h"

/* What an image refers to in others. */
struct heritage {
	char parent[FSNAP_NAME_MAX + 1]; /* empty: it stands alone */
	unsigned images;
	uint64_t bytes;
};

static struct heritage heritage_of(const struct image *image)
{
	struct heritage heritage = { .images = image_files(image) - 1 };
	uint64_t pages;
	const char *parent = image_parent(image, 1, &pages);

	if (parent) {
		snprintf(heritage.parent, sizeof(heritage.parent), "%s", parent);
		heritage.bytes = image_referred(image) * STORE_PAGE;
	}
	return heritage;
}

/* An image that cannot be opened is listed all the same: it takes space, and can be removed. What is
 * wrong with it, the listing of the store saw (its head) or is found here (the rest). */
static bool read_tree(struct catalogue *catalogue, const struct store_entry *entry,
		      image_tree *tree, struct heritage *heritage, struct fsnap_error *damage)
{
	struct image *image;

	memset(tree, 0, sizeof(*tree));
	memset(heritage, 0, sizeof(*heritage));
	*damage = entry->damage;
	if (damage->code)
		return false;
	image = image_open(catalogue->store, entry->name, damage);
	if (!image)
		return false;
	image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, tree, damage);
	*heritage = heritage_of(image);
	image_close(image);
	return !damage->code;
}

static void print_json(struct catalogue *catalogue)
{
	struct json json = output_json();

	json_object(&json);
	json_string(json_key(&json, "store"), catalogue->dir);
	json_array(json_key(&json, "images"));
	for (size_t i = 0; i < catalogue->count; i++) {
		const struct store_entry *entry = &catalogue->entries[i];
		struct fsnap_error damage;
		struct heritage heritage;
		image_tree tree;

		json_object(&json);
		json_string(json_key(&json, "name"), entry->name);
		json_u64(json_key(&json, "created_ns"), entry->created_ns);
		json_u64(json_key(&json, "file_bytes"), entry->file_bytes);
		json_u64(json_key(&json, "page_bytes"), entry->page_bytes);
		if (entry->codec)
			json_string(json_key(&json, "compressed"), store_codec_name(entry->codec));
		if (entry->cipher)
			json_string(json_key(&json, "encrypted"), store_cipher_name(entry->cipher));
		if (read_tree(catalogue, entry, &tree, &heritage, &damage)) {
			json_string(json_key(&json, "comm"), tree.comm);
			json_i64(json_key(&json, "pid"), tree.root_pid);
			json_u64(json_key(&json, "processes"), tree.processes);
			json_u64(json_key(&json, "threads"), tree.threads);
			if (heritage.parent[0]) {
				json_string(json_key(&json, "parent"), heritage.parent);
				json_u64(json_key(&json, "ancestors"), heritage.images);
				json_u64(json_key(&json, "referred_bytes"), heritage.bytes);
			}
		}
		if (damage.code)
			output_json_error(&json, &damage);
		json_close(&json);
		xdr_free((xdrproc_t)xdr_image_tree, (char *)&tree);
	}
	json_close(&json);
	json_close(&json);
	json_finish(&json);
}

static int name_width(const struct catalogue *catalogue)
{
	size_t width = strlen("IMAGE");

	for (size_t i = 0; i < catalogue->count; i++)
		if (strlen(catalogue->entries[i].name) > width)
			width = strlen(catalogue->entries[i].name);
	return (int)width;
}

static void print_table(struct catalogue *catalogue)
{
	int width = name_width(catalogue);

	printf("%s%-*s  %-12s %10s  %s%s\n", style_dim(stdout), width, "IMAGE", "SAVED", "SIZE",
	       "WHAT", style_end(stdout));
	for (size_t i = 0; i < catalogue->count; i++) {
		const struct store_entry *entry = &catalogue->entries[i];
		struct fsnap_error damage;
		struct heritage heritage;
		image_tree tree;

		printf("%-*s  %-12s %10s  ", width, entry->name, text_age(entry->created_ns).s,
		       text_bytes(entry->file_bytes).s);
		if (read_tree(catalogue, entry, &tree, &heritage, &damage)) {
			printf("%s, %s", tree.comm, text_count(tree.processes, "process", "processes").s);
			if (heritage.parent[0])
				printf("; %s more in %s", text_bytes(heritage.bytes).s, heritage.parent);
			if (heritage.images > 1)
				printf(" and %s", text_count(heritage.images - 1, "other", "others").s);
			putchar('\n');
		} else
			printf("%s%s%s: %s\n", style_bad(stdout),
			       damage.code == FSNAP_E_IMAGE_SIGNATURE ? "not trusted" :
			       damage.code == FSNAP_E_IMAGE_KEY	      ? "encrypted" : "damaged", style_end(stdout),
			       damage.message);
		xdr_free((xdrproc_t)xdr_image_tree, (char *)&tree);
	}
}

int cli_list(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };

	if (catalogue_open(&catalogue, cli, STORE_READ, err))
		return -1;
	if (cli->json) {
		print_json(&catalogue);
	} else if (cli->quiet) {
		for (size_t i = 0; i < catalogue.count; i++)
			puts(catalogue.entries[i].name);
	} else if (catalogue.count) {
		print_table(&catalogue);
	} else {
		fprintf(stderr, "there is no image in %s\n", catalogue.dir);
	}
	return EXIT_SUCCESS;
}
