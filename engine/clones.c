/*
 * clones.c - copies side by side: any number of restores of one image, all of them or none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/end_tree.h"
#include "engine/fsnap.h"
#include "engine/limits.h"
#include "engine/sized.h"
#include "store/error.h"
#include "store/scope.h"

/* --- the template ------------------------------------------------------------------------ */

/* Held once for all: it must have room itself. */
static int hold(struct fsnap_restore_options *options, unsigned n, struct fsnap_template **template,
		struct fsnap_error *err)
{
	*template = NULL;
	if (options->from || n == 1)
		return 0;
	if (limits_check(options, n, err) < 0 || fsnap_template_open(options->store, options->image, template, err) < 0)
		return -1;
	options->from = *template;
	return 0;
}

/* --- "{n}" ---------------------------------------------------------------------------------- */

static char *numbered(const char *text, unsigned number)
{
	char *result = NULL;
	size_t size;
	FILE *out = open_memstream(&result, &size);
	for (const char *at = text; out && *at; at++) {
		if (strncmp(at, "{n}", 3) != 0) {
			fputc(*at, out);
			continue;
		}
		fprintf(out, "%u", number);
		at += 2;
	}
	if (!out || fclose(out) == 0)
		return result;
	free(result);
	return NULL;
}

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

/* False: there is no memory for it. */
static bool numbered_list(const char *const *words, unsigned number, char ***list)
{
	size_t n = 0;
	while (words && words[n])
		n++;
	*list = words ? calloc(n + 1, sizeof(**list)) : NULL;
	for (size_t i = 0; *list && i < n; i++)
		if (!((*list)[i] = numbered(words[i], number))) {
			free_list(*list);
			*list = NULL;
		}
	return !words || *list;
}

static int make_one(const struct fsnap_restore_options *common, unsigned number, struct fsnap_restore_report *report,
		    struct fsnap_error *err)
{
	struct fsnap_restore_options own = *common;
	char **map = NULL, **listen = NULL, **env = NULL, **with = NULL;
	cleanup_free char *cwd = own.cwd ? numbered(own.cwd, number) : NULL;
	bool said = numbered_list(own.map, number, &map) && numbered_list(own.listen, number, &listen) &&
		    numbered_list(own.env, number, &env) && numbered_list(own.with, number, &with) && (cwd || !own.cwd);
	own.map = (const char *const *)map;
	own.listen = (const char *const *)listen;
	own.env = (const char *const *)env;
	own.with = (const char *const *)with;
	own.cwd = cwd;
	own.copy = number;
	report->size = sizeof(*report);
	int result = said ? fsnap_restore(&own, report, err) :
			    fail(err, FSNAP_E_NOMEM, ENOMEM, "the options of copy %u", number);
	free_list(map);
	free_list(listen);
	free_list(env);
	free_list(with);
	return result;
}

/* --- all or none -------------------------------------------------------------------------------- */

static void unmake(const struct fsnap_restore_report *reports, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		end_tree(reports[i].pid);
		waitpid(reports[i].pid, NULL, __WALL);
		if (reports[i].pidfd >= 0)
			close(reports[i].pidfd);
	}
}

int fsnap_clones(const struct fsnap_restore_options *options, unsigned n, struct fsnap_restore_report *reports,
		 struct fsnap_error *err)
{
	struct fsnap_restore_options common;
	struct fsnap_error ignored = { 0 };
	err = err ? err : &ignored;
	sized_take(&common, sizeof(common), options);
	if (common.pids == FSNAP_PIDS_DEFAULT && !common.pid_ns && !common.user_ns)
		common.pids = FSNAP_PIDS_NEW;
	cleanup_free struct fsnap_restore_report *own = calloc(n + 1, sizeof(*own));
	if (!own)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%u copies", n);
	struct fsnap_template *template;
	if (n == 0)
		return fail(err, FSNAP_E_USAGE, 0, "no copies");
	if (hold(&common, n, &template, err) < 0)
		return -1;
	unsigned first = common.copy ? common.copy : 1;
	int result = limits_check(&common, n, err);
	for (unsigned i = 0; result == 0 && i < n; i++) {
		if (make_one(&common, first + i, &own[i], err) == 0)
			continue;
		unmake(own, i);
		result = n > 1 ? error_context(err, "copy %u", first + i) : -1;
	}
	fsnap_template_close(template);
	if (result < 0)
		return -1;
	size_t size = reports ? reports->size : 0;
	for (unsigned i = 0; i < n && reports; i++) {
		struct fsnap_restore_report *to = (struct fsnap_restore_report *)((char *)reports + i * size);
		to->size = size;
		sized_tell(to, &own[i], sizeof(own[i]));
	}
	return 0;
}

int fsnap_spawn(const char *image, const struct fsnap_restore_options *options, struct fsnap_restore_report *report,
		struct fsnap_error *err)
{
	struct fsnap_restore_options own;
	struct fsnap_restore_report told = { .size = sizeof(told) };
	sized_take(&own, sizeof(own), options);
	own.image = image;
	own.detach = own.pidfd = 1;
	if (own.pids == FSNAP_PIDS_DEFAULT && !own.pid_ns && !own.user_ns)
		own.pids = FSNAP_PIDS_NEW;
	if (fsnap_restore(&own, &told, err) < 0)
		return -1;
	sized_tell(report, &told, sizeof(told));
	return told.pidfd;
}
