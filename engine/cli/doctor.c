/*
 * doctor.c - fsnap doctor: what works here, for this user.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "engine/cli/cli.h"

struct telling {
	const struct cli *cli;
	struct json json;
	const char *group; /* the one being printed */
};

static const char *const states[] = { [FSNAP_CHECK_GOOD] = "good", [FSNAP_CHECK_PARTLY] = "partly",
				      [FSNAP_CHECK_LACKS] = "lacks", [FSNAP_CHECK_FATAL] = "fatal" };

static void tell_json(struct telling *telling, const struct fsnap_check *check)
{
	struct json *json = &telling->json;

	json_object(json);
	json_string(json_key(json, "group"), check->group);
	json_string(json_key(json, "name"), check->name);
	json_string(json_key(json, "state"), states[check->state]);
	json_string(json_key(json, "found"), check->found);
	json_string(json_key(json, "costs"), check->costs);
	json_string(json_key(json, "remedy"), check->remedy);
	json_close(json);
	fflush(stdout); /* before the next is tried */
}

static void tell_text(struct telling *telling, const struct fsnap_check *check)
{
	const char *const begin[] = { [FSNAP_CHECK_GOOD] = "", [FSNAP_CHECK_PARTLY] = style_bold(stdout),
				      [FSNAP_CHECK_LACKS] = style_bold(stdout),
				      [FSNAP_CHECK_FATAL] = style_bad(stdout) };

	if (!telling->group || strcmp(telling->group, check->group) != 0)
		printf("%s%s%s%s\n", telling->group ? "\n" : "", style_bold(stdout), check->group, style_end(stdout));
	telling->group = check->group;
	printf("  %s%-6s%s  %-28s %s\n", begin[check->state], states[check->state],
	       check->state == FSNAP_CHECK_GOOD ? "" : style_end(stdout), check->name, check->found);
	if (check->costs[0])
		printf("  %8s%scosts:%s   %s\n", "", style_dim(stdout), style_end(stdout), check->costs);
	if (check->remedy[0])
		printf("  %8s%sget it:%s  %s\n", "", style_dim(stdout), style_end(stdout), check->remedy);
	fflush(stdout);
}

static void tell(void *arg, const struct fsnap_check *check)
{
	struct telling *telling = arg;

	if (telling->cli->json)
		tell_json(telling, check);
	else if (!telling->cli->quiet || check->state == FSNAP_CHECK_FATAL)
		tell_text(telling, check);
}

static void sum_up(const struct fsnap_doctor_report *report)
{
	if (report->fatal)
		printf("\n%sfsnap does not work here%s: see what is marked fatal\n", style_bad(stdout),
		       style_end(stdout));
	else
		printf("\nfsnap works here; of %u features %u are there, %u partly, %u not\n",
		       report->good + report->partly + report->lacks, report->good, report->partly, report->lacks);
}

int cli_doctor(const struct cli *cli, struct fsnap_error *err)
{
	struct telling telling = { .cli = cli };
	struct fsnap_doctor_options options = { .size = sizeof(options), .store = cli->store, .told = tell,
						.told_arg = &telling };
	struct fsnap_doctor_report report = { .size = sizeof(report) };
	struct utsname name;

	uname(&name);
	if (cli->json) {
		telling.json = output_json();
		json_object(&telling.json);
		json_string(json_key(&telling.json, "kernel"), name.release);
		json_u64(json_key(&telling.json, "uid"), geteuid());
		json_array(json_key(&telling.json, "checks"));
	} else if (!cli->quiet)
		printf("fsnap %s on %s %s, for user %u\n\n", fsnap_version(), name.sysname, name.release, geteuid());
	fflush(stdout); /* what is tried is tried in children, too: none may have this to write */
	if (fsnap_doctor(&options, &report, err))
		return -1;
	if (cli->json) {
		json_close(&telling.json);
		json_bool(json_key(&telling.json, "works"), !report.fatal);
		json_close(&telling.json);
		json_finish(&telling.json);
	} else if (!cli->quiet) {
		sum_up(&report);
	}
	return report.fatal ? EXIT_GENERAL : EXIT_SUCCESS;
}
