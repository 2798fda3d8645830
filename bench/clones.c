/*
 * clones.c - what a copy costs: of a program with 64 MiB of memory and several threads, from a template and from an
 * image in DRAM, beside fork+exec of `true`.
 *
 *	clones [--copies N] [--store DIR] [--only image|template|idle|makers]
 *
 * A copy is told of as made when its first instruction may run (fsnap_restore_report.first_instruction_us). Copies of
 * the program (copied.c) check all of their memory and end; idle ones are looked at in /proc/PID/smaps_rollup.
 */
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/fsnap.h"

enum { MOST = 1000, IDLE = 100 };

static double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static _Noreturn void die(const char *what, const struct fsnap_error *err)
{
	fprintf(stderr, "clones: %s: %s (%s)\n", what, err ? err->message : "", err ? err->hint : "");
	exit(1);
}

/* --- the program (copied.c) ------------------------------------------------------------ */

static pid_t start_program(const char *program, const char *ready)
{
	unlink(ready);
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);
		for (int i = 0; i < 3; i++)
			dup2(null, i);
		close_range(3, ~0u, 0);
		setsid();
		execl(program, program, ready, NULL);
		_exit(127);
	}
	while (access(ready, F_OK) < 0)
		usleep(1000);
	usleep(50000);
	return pid;
}

/* --- figures --------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Processor time of ours and of those that have ended: busy neighbours do not change it much. */
static double used_us(void)
{
	double us = 0;
	struct rusage usage;
	for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) {
		getrusage(who, &usage);
		us += 1e6 * (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		      (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
	}
	return us;
}

static void tell(const char *what, double *us, size_t n, double used)
{
	qsort(us, n, sizeof(*us), by_value);
	printf("%-52s median %7.2f ms   p95 %7.2f ms   processor %5.2f ms\n", what, us[n / 2] / 1e3,
	       us[n * 95 / 100] / 1e3, used / 1e3 / (double)n);
}

/* Where the time went, stage by stage: medians of each, so that they need not add up. */
static void tell_stages(const struct fsnap_restore_report *reports, size_t n)
{
	static const struct {
		const char *name;
		size_t at;
	} stages[] = { { "open", offsetof(struct fsnap_restore_report, open_us) },
		       { "prepare", offsetof(struct fsnap_restore_report, prepare_us) },
		       { "build", offsetof(struct fsnap_restore_report, build_us) },
		       { "release", offsetof(struct fsnap_restore_report, release_us) } };
	static double us[MOST];
	printf("   ");
	for (size_t stage = 0; stage < sizeof(stages) / sizeof(stages[0]); stage++) {
		for (size_t i = 0; i < n; i++)
			us[i] = (double)*(const uint64_t *)((const char *)&reports[i] + stages[stage].at);
		qsort(us, n, sizeof(*us), by_value);
		printf(" %s %.2f", stages[stage].name, us[n / 2] / 1e3);
	}
	puts(" ms");
}

static void end_copy(int pidfd, pid_t pid, int signo)
{
	siginfo_t info = { 0 };
	kill(pid, signo);
	waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
	close(pidfd);
	if (signo == SIGTERM && (info.si_code != CLD_EXITED || info.si_status != 0))
		die("a copy's memory is not what it was", NULL);
}

static int spawn(const char *store, const struct fsnap_template *from, struct fsnap_restore_report *report)
{
	struct fsnap_error err = { 0 };
	struct fsnap_restore_options options = { .size = sizeof(options), .store = store, .from = from,
						 .prefetch = FSNAP_PREFETCH_OFF, .memory = FSNAP_MEMORY_STREAM };
	int pidfd = fsnap_spawn("clones", &options, report, &err);
	if (pidfd < 0)
		die("a copy", &err);
	return pidfd;
}

static void one_by_one(const char *what, const char *store, const struct fsnap_template *from, size_t n)
{
	static double us[MOST];
	static struct fsnap_restore_report reports[MOST];
	double before = used_us();
	for (size_t i = 0; i < n; i++) {
		reports[i].size = sizeof(reports[i]);
		int pidfd = spawn(store, from, &reports[i]);
		us[i] = (double)reports[i].first_instruction_us;
		end_copy(pidfd, reports[i].pid, i % 50 ? SIGKILL : SIGTERM);
	}
	tell(what, us, n, used_us() - before);
	tell_stages(reports, n);
}

/* Two makers, each with a template of its own, as a test runner with two workers has. */
static void sustained(const char *store, size_t n)
{
	double begin = 0;
	int line[2];
	if (pipe(line) < 0)
		die("pipe", NULL);
	for (int maker = 0; maker < 2; maker++) {
		if (fork())
			continue;
		struct fsnap_template *from;
		struct fsnap_error err = { 0 };
		if (fsnap_template_open(store, "clones", &from, &err) < 0)
			die("template", &err);
		double began = now_us();
		for (size_t i = 0; i < n; i++) {
			struct fsnap_restore_report report = { .size = sizeof(report) };
			int pidfd = spawn(store, from, &report);
			end_copy(pidfd, report.pid, SIGKILL);
		}
		double rate = (double)n / ((now_us() - began) / 1e6);
		_exit(write(line[1], &rate, sizeof(rate)) < 0);
	}
	for (int maker = 0; maker < 2; maker++) {
		double rate = 0;
		if (read(line[0], &rate, sizeof(rate)) > 0)
			begin += rate;
		wait(NULL);
	}
	printf("%-52s %14.0f a second\n", "copies by two makers, each ended before the next", begin);
}

static double proportional_kib(pid_t pid)
{
	char path[64], line[256];
	double kib = 0;
	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Pss: %lf", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

static void idle(const char *store, struct fsnap_template *from, double alone_kib)
{
	static struct fsnap_restore_report reports[IDLE];
	int pidfds[IDLE];
	double kib = 0;
	for (int i = 0; i < IDLE; i++) {
		reports[i].size = sizeof(reports[i]);
		pidfds[i] = spawn(store, from, &reports[i]);
	}
	for (int i = 0; i < IDLE; i++)
		kib += proportional_kib(reports[i].pid);
	printf("%-52s %8.1f MiB (one copy alone: %.1f)\n", "memory of 100 copies that write nothing", kib / 1024,
	       alone_kib / 1024);
	for (int i = 0; i < IDLE; i++)
		end_copy(pidfds[i], reports[i].pid, i ? SIGKILL : SIGTERM);
}

static void fork_and_exec(size_t n)
{
	static double us[MOST];
	char *argv[] = { "true", NULL };
	double before = used_us();
	for (size_t i = 0; i < n; i++) {
		double begin = now_us();
		pid_t pid;
		if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, argv + 1) != 0)
			die("true", NULL);
		waitpid(pid, NULL, 0);
		us[i] = now_us() - begin;
	}
	tell("fork+exec of `true`, until it has ended", us, n, used_us() - before);
}

static int wanted(const char *only, const char *what)
{
	return !only || strcmp(only, what) == 0;
}

int main(int argc, char **argv)
{
	const char *store = "/dev/shm/fsnap-clones", *ready = "/dev/shm/fsnap-clones.ready", *only = NULL;
	size_t n = 100;
	char program[4096];
	snprintf(program, sizeof(program), "%.4000s/copied", dirname(strdupa(argv[0])));
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--copies") == 0)
			n = strtoul(argv[i + 1], NULL, 10);
		if (strcmp(argv[i], "--store") == 0)
			store = argv[i + 1];
		if (strcmp(argv[i], "--only") == 0)
			only = argv[i + 1];
	}
	n = n < 10 ? 10 : n > MOST ? MOST : n;
	struct fsnap_error err = { 0 };
	pid_t pid = start_program(program, ready);
	double alone = proportional_kib(pid);
	struct fsnap_dump_options dump = { .size = sizeof(dump), .pid = pid, .store = store, .name = "clones",
					   .kill = 1, .heat = FSNAP_HEAT_NEVER };
	if (fsnap_dump(&dump, NULL, &err) < 0)
		die("dump", &err);
	waitpid(pid, NULL, 0);
	fork_and_exec(n);
	if (wanted(only, "image"))
		one_by_one("a copy from the image in DRAM", store, NULL, n);
	struct fsnap_template *from;
	double begin = now_us();
	if (fsnap_template_open(store, "clones", &from, &err) < 0)
		die("template", &err);
	printf("%-52s        %7.2f ms   holds %.1f MiB\n", "making the template", (now_us() - begin) / 1e3,
	       (double)fsnap_template_bytes(from) / 1048576);
	if (wanted(only, "template"))
		one_by_one("a copy from the template", store, from, n);
	if (wanted(only, "idle"))
		idle(store, from, alone);
	fsnap_template_close(from);
	if (wanted(only, "makers"))
		sustained(store, n);
	char command[256];
	snprintf(command, sizeof(command), "rm -rf '%s' '%s'", store, ready);
	return system(command) != 0; /* NOLINT(cert-env33-c): its own names */
}
