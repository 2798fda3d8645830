#include "engine/remap.h"

#include <stdlib.h>
#include <string.h>

#include "store/scope.h"

static int bad(const char *word, const char *what, struct fsnap_error *err)
{
	fail(err, FSNAP_E_USAGE, 0, "--map %s: %s", word, what);
	return error_hint(err, "say --map OLD=NEW with two absolute paths, like --map /srv/old=/srv/new");
}

static void trim(char *path)
{
	for (size_t n = strlen(path); n && path[n - 1] == '/'; n--)
		path[n - 1] = '\0';
}

static int parse(struct mapping *mapping, const char *word, struct fsnap_error *err)
{
	char *to = mapping->old = malloc(strlen(word) + 1);
	if (!to)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--map");
	for (; *word && *word != '='; word++) {
		if (*word == '\\' && (word[1] == '=' || word[1] == '\\'))
			word++;
		*to++ = *word;
	}
	*to = '\0';
	mapping->new = word + 1;
	if (*word != '=')
		return -1;
	if (mapping->old[0] != '/' || mapping->new[0] != '/')
		return -1;
	trim(mapping->old);
	return 0;
}

int remap_open(struct remap *remap, const char *const *words, struct fsnap_error *err)
{
	size_t n = 0;
	while (words && words[n])
		n++;
	remap->list = calloc(n + 1, sizeof(*remap->list));
	if (!remap->list)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--map");
	for (; remap->n < n; remap->n++) {
		const char *word = words[remap->n];
		if (parse(&remap->list[remap->n], word, err) < 0) {
			remap->n++;
			return error_is_set(err) ? -1 : bad(word, "not two absolute paths", err);
		}
		for (size_t i = 0; i < remap->n; i++)
			if (strcmp(remap->list[i].old, remap->list[remap->n].old) == 0) {
				remap->n++;
				return bad(word, "this path is mapped twice", err);
			}
	}
	return 0;
}

void remap_close(struct remap *remap)
{
	for (size_t i = 0; i < remap->n; i++)
		free(remap->list[i].old);
	free(remap->list);
	*remap = (struct remap){ 0 };
}

bool remap_covers(const char *above, const char *path)
{
	size_t length = strcmp(above, "/") ? strlen(above) : 0;
	return strncmp(path, above, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

char *remap_path(const struct remap *remap, const char *path, struct fsnap_error *err)
{
	const struct mapping *best = NULL;
	for (size_t i = 0; path[0] == '/' && i < remap->n; i++)
		if (remap_covers(remap->list[i].old, path) &&
		    (!best || strlen(remap->list[i].old) > strlen(best->old)))
			best = &remap->list[i];
	if (!best)
		return NULL;
	const char *rest = path + strlen(best->old);
	char *result = malloc(strlen(best->new) + strlen(rest) + 2);
	if (!result) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", path);
		return NULL;
	}
	strcpy(result, best->new);
	trim(result);
	strcat(result, rest);
	if (!result[0])
		strcpy(result, "/");
	return result;
}

char *remap_origin(const struct remap *remap, const char *path)
{
	for (size_t i = 0; i < remap->n; i++) {
		const char *old = remap->list[i].old, *above = remap->list[i].new;
		cleanup_free char *trimmed = strdup(above);
		if (!trimmed)
			return NULL;
		trim(trimmed);
		if (!remap_covers(trimmed, path))
			continue;
		char *origin = malloc(strlen(old) + strlen(path) + 1);
		cleanup_free char *again = NULL;
		if (!origin)
			return NULL;
		strcpy(origin, old);
		strcat(origin, path + strlen(trimmed));
		again = remap_path(remap, origin, NULL);
		if (again && strcmp(again, path) == 0) /* and not a longer one's */
			return origin;
		free(origin);
	}
	return NULL;
}
