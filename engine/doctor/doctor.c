#include "engine/doctor/doctor.h"
#include "engine/sized.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#include "store/error.h"
#include "store/scope.h"

static const struct check *const all_checks[] = { checks_of_processes, checks_of_memory, checks_of_restoring,
						  checks_of_network, checks_of_machine };

/* --- what probes say ------------------------------------------------------------------ */

void find(struct finding *finding, int state, const char *format, ...)
{
	va_list args;

	finding->state = state;
	va_start(args, format);
	vsnprintf(finding->found, sizeof(finding->found), format, args);
	va_end(args);
}

void find_result(struct finding *finding, bool worked, int state)
{
	if (worked)
		find(finding, FSNAP_CHECK_GOOD, "works");
	else
		find(finding, state, "%s", strerror(errno));
}

/* --- what several of them ask ---------------------------------------------------------- */

bool has_capability(unsigned number)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &header, data) == 0 && data[number / 32].effective >> number % 32 & 1;
}

const char *line_in(const char *path, char *line, size_t size)
{
	cleanup_file FILE *file = fopen(path, "re");

	if (!file || !fgets(line, (int)size, file))
		line[0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return line;
}

long long number_in(const char *path)
{
	char line[64], *end;
	long long number = strtoll(line_in(path, line, sizeof(line)), &end, 10);

	return end > line ? number : -1;
}

/* --- the whole --------------------------------------------------------------------------- */

struct attempt {
	const struct check *check;
	const char *store;
	struct finding *finding; /* shared with the child */
};

static void attempt(void *arg)
{
	struct attempt *attempt = arg;

	attempt->check->probe(attempt->finding, attempt->store);
}

static void examine(struct attempt *of)
{
	*of->finding = (struct finding){ .state = FSNAP_CHECK_LACKS };
	if (!of->check->apart)
		attempt(of);
	else if (!subject_run(attempt, of))
		find(of->finding, FSNAP_CHECK_LACKS, "the process that tried it was killed: a seccomp filter?");
}

static void count(struct fsnap_doctor_report *report, int state)
{
	switch (state) {
	case FSNAP_CHECK_GOOD:
		report->good++;
		break;
	case FSNAP_CHECK_PARTLY:
		report->partly++;
		break;
	case FSNAP_CHECK_LACKS:
		report->lacks++;
		break;
	default:
		report->fatal++;
	}
}

static void tell(const struct fsnap_doctor_options *options, const struct check *check, const struct finding *finding)
{
	bool good = finding->state == FSNAP_CHECK_GOOD;
	struct fsnap_check told = {
		.size = sizeof(told),
		.group = check->group,
		.name = check->name,
		.state = finding->state,
		.found = finding->found,
		.costs = good ? "" : check->costs,
		.remedy = good ? "" : finding->remedy[0] ? finding->remedy : check->remedy,
	};
	if (options->told)
		options->told(options->told_arg, &told);
}

static int examine_all(const struct fsnap_doctor_options *options, struct fsnap_doctor_report *report,
		       struct fsnap_error *err)
{
	char dir[4096];
	struct attempt attempt = { .store = options->store };

	if (!attempt.store && fsnap_default_store(dir, sizeof(dir), NULL) == 0)
		attempt.store = dir;
	attempt.finding = mmap(NULL, sizeof(*attempt.finding), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			       -1, 0);
	if (attempt.finding == MAP_FAILED)
		return fail(err, FSNAP_E_NOMEM, errno, "looking at the machine");
	for (size_t i = 0; i < sizeof(all_checks) / sizeof(*all_checks); i++)
		for (attempt.check = all_checks[i]; attempt.check->name; attempt.check++) {
			examine(&attempt);
			count(report, attempt.finding->state);
			tell(options, attempt.check, attempt.finding);
		}
	munmap(attempt.finding, sizeof(*attempt.finding));
	return 0;
}

int fsnap_doctor(const struct fsnap_doctor_options *options, struct fsnap_doctor_report *report,
		 struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_doctor_options known;
	struct fsnap_doctor_report own = { 0 };

	sized_take(&known, sizeof(known), options);
	int result = examine_all(&known, &own, err ? err : &ignored);
	if (result == 0)
		sized_tell(report, &own, sizeof(own));
	return result;
}
