#include "engine/takeback.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kinds/kinds.h"
#include "engine/restore.h"

struct takeback {
	struct takeback *earlier;
	void (*remove)(const char *name);
	char name[];
};

void restore_takes_back(struct restore *restore, void (*remove)(const char *name), const char *name)
{
	size_t size = strlen(name) + 1;
	struct takeback *made = malloc(sizeof(*made) + size);
	if (!made)
		return; /* then it stays where the restore fails */
	made->earlier = restore->takebacks;
	made->remove = remove;
	memcpy(made->name, name, size);
	restore->takebacks = made;
}

static void end_all(struct restore *restore, bool removing)
{
	while (restore->takebacks) {
		struct takeback *last = restore->takebacks;
		restore->takebacks = last->earlier;
		if (removing)
			last->remove(last->name);
		free(last);
	}
}

void takeback(struct restore *restore)
{
	end_all(restore, true);
}

void takeback_forget(struct restore *restore)
{
	end_all(restore, false);
}
