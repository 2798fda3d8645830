/*
 * connections.c - the connections of an image that will not be restored.
 */
#include "engine/fsnap.h"
#include "engine/kinds/tcp_hold.h"
#include "store/scope.h"
#include "store/store.h"

static int give_up(struct store *store, const char *name, struct fsnap_error *err)
{
	image_tree tree = { 0 };
	struct image *image = image_open(store, name, err);
	int result = image ? 0 : -1;
	if (result == 0)
		result = image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &tree, err);
	if (result == 0 && tree.hold[0])
		result = tcp_hold_remove(tree.hold, err);
	xdr_free((xdrproc_t)xdr_image_tree, (char *)&tree);
	image_close(image);
	return result;
}

int fsnap_give_up_connections(const char *dir, const char *name, struct fsnap_error *err)
{
	char known[4096];
	if (!dir && fsnap_default_store(known, sizeof(known), err) < 0)
		return -1;
	struct store *store = store_open(dir ? dir : known, STORE_READ, err);
	int result = store ? give_up(store, name, err) : -1;
	store_close(store);
	return result;
}
