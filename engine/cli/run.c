/*
 * run.c - fsnap run --warm IMAGE -- COMMAND: a start from the image, if there is one, else the command, and an image
 * of it as soon as it says that it is ready. An image of another command is not what was asked for, and made anew.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cli/catalogue.h"
#include "engine/cli/origin.h"
#include "store/scope.h"

/* What is closed here would be so in a program that is started, too; but not everybody can close a descriptor that
 * an image has: it leads nowhere. */
static int choose_streams(const struct origin_found *found, int streams[3], struct fsnap_error *err)
{
	for (int fd = 0; fd < 3; fd++) {
		streams[fd] = found->streams[fd] ? fd : -1;
		if (!found->streams[fd] || !(fcntl(fd, F_GETFL) & O_PATH)) /* main.c */
			continue;
		cleanup_fd int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (nowhere < 0 || dup3(nowhere, fd, O_CLOEXEC) < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "standard stream %d", fd);
	}
	return 0;
}

/* Somebody else runs from it, as when tests run side by side: then with namespaces. */
static int restore(const struct cli *cli, const struct origin_found *found, struct fsnap_restore_report *report,
		   struct fsnap_error *err)
{
	int streams[3];
	struct fsnap_restore_options options = {
		.size = sizeof(options), .store = cli->store, .image = cli->warm, .with_overwrite = cli->with_overwrite,
		.wipe = 1, /* each start is one of many from the same instant */
		.decrypt = cli->encrypt, .stdio = streams,
	};
	if (choose_streams(found, streams, err) < 0 || changed_choose(cli->changed, &options.changed, err) < 0)
		return -1;
	if (fsnap_restore(&options, report, err) == 0)
		return 0;
	if (err->code != FSNAP_E_PID_TAKEN)
		return -1;
	*err = (struct fsnap_error){ 0 };
	options.pid_ns = options.ipc_ns = 1;
	return fsnap_restore(&options, report, err);
}

/* Of another build of the program, or of a machine that could do more. */
static bool is_outdated(int code)
{
	return code == FSNAP_E_FILE_CHANGED || code == FSNAP_E_FILE_MISSING || code == FSNAP_E_IMAGE_CPU ||
	       code == FSNAP_E_IMAGE_FORMAT;
}

static int run_anew(const struct cli *cli, struct catalogue *catalogue, struct origin *origin, const char *why,
		    struct fsnap_error *err)
{
	fprintf(stderr, "fsnap: %s; it is started anew\n", why);
	*err = (struct fsnap_error){ 0 };
	/* Somebody who starts the same may have been quicker. */
	if (store_remove(catalogue->store, cli->warm, err) < 0 && err->code != FSNAP_E_IMAGE_MISSING)
		return -1;
	*err = (struct fsnap_error){ 0 };
	return run_cold(cli, origin, err);
}

static int run_warm(const struct cli *cli, struct catalogue *catalogue, const struct origin_found *found,
		    struct origin *origin, struct fsnap_error *err)
{
	struct fsnap_restore_report report = { .size = sizeof(report) };

	struct foreground *foreground = foreground_begin();
	if (restore(cli, found, &report, err) == 0) {
		output_notes(cli, report.notes);
		return foreground_wait(foreground, report.pid, report.terminal);
	}
	if (!is_outdated(err->code) || cli->changed || !found->made_by_run ||
	    (!cli->with_overwrite && strstr(err->hint, "--with-overwrite")))
		return -1;
	return run_anew(cli, catalogue, origin, err->message, err);
}

/* What somebody else has put there under this name is not ours to replace. */
static int foreign(const struct cli *cli, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_EXISTS, 0, "image %s was not made by `fsnap run`", cli->warm);
	return error_hint(err, "take another name; or start from this one as it is: --changed accept");
}

static int differs(const struct cli *cli, struct catalogue *catalogue, const struct origin_found *found,
		   struct origin *origin, struct fsnap_error *err)
{
	char why[sizeof(found->differs) + FSNAP_NAME_MAX + 32];

	snprintf(why, sizeof(why), "image %s is of another start: %s", cli->warm, found->differs);
	if (!cli->changed)
		return run_anew(cli, catalogue, origin, why, err);
	if (strcmp(cli->changed, "refuse") == 0) {
		fail(err, FSNAP_E_IMAGE_EXISTS, 0, "%s", why);
		return error_hint(err, "take another name; without --changed refuse it would be made anew");
	}
	if (strcmp(cli->changed, "warn") == 0)
		fprintf(stderr, "fsnap: %s\n", why);
	return run_warm(cli, catalogue, found, origin, err);
}

static int examine(const struct cli *cli, const struct catalogue *catalogue, const struct origin *origin,
		   struct origin_found *found, struct fsnap_error *err)
{
	if (cli->encrypt && store_set_key(catalogue->store, cli->encrypt, err) < 0)
		return -1;
	struct image *image = image_open(catalogue->store, cli->warm, err);
	int result = image ? origin_compare(origin, image, found, err) : -1;
	if (image)
		image_close(image);
	return result;
}

/* NAME=VALUE is given to the program; both forms are what it depends on. */
static int take_variables(const struct cli *cli, struct fsnap_error *err)
{
	for (const char **at = cli->envs; at && *at; at++) {
		size_t length = strcspn(*at, "=");
		cleanup_free char *name = strndup(*at, length);

		if (!name || !length || ((*at)[length] && setenv(name, *at + length + 1, 1)))
			return fail(err, FSNAP_E_USAGE, 0, "--env %s: neither NAME nor NAME=VALUE", *at);
	}
	return 0;
}

int cli_run(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };
	cleanup_origin struct origin origin = { 0 };
	struct origin_found found;
	int changed = 0;

	if (!cli->warm || strchr(cli->warm, '/'))
		return fail(err, FSNAP_E_USAGE, 0, "fsnap run needs the name of an image: --warm IMAGE");
	if (changed_choose(cli->changed, &changed, err) < 0 || take_variables(cli, err) < 0 ||
	    origin_describe(&origin, cli, err) < 0 || catalogue_open(&catalogue, cli, STORE_WRITE, err) < 0)
		return -1;
	if (!catalogue_holds(&catalogue, cli->warm))
		return run_cold(cli, &origin, err);
	if (examine(cli, &catalogue, &origin, &found, err) < 0)
		return -1;
	if (found.made_by_run && found.differs[0])
		return differs(cli, &catalogue, &found, &origin, err);
	if (!found.made_by_run && changed != FSNAP_CHANGED_ACCEPT)
		return foreign(cli, err);
	return run_warm(cli, &catalogue, &found, &origin, err);
}
