/*
 * fuzz_plan.c - any bytes as records of an image whose checksums are right, of which the plans of a restore are made.
 *
 * Shown: what the records say of each other is checked before it is used: an image that does not fit together is
 * refused, and no plan reaches beyond itself. Nothing is carried out: the plans are printed, as
 * `fsnap restore --explain` does. The image is said to be of this machine, for one of another ends before; and the
 * files that seeds name (make-seeds) are made here, and may have changed.
 * The input is that of fuzz_records.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/machine.h"
#include "engine/restore.h"
#include "fuzz.h"
#include "store/scope.h"

static image_machine *here(void)
{
	static image_machine machine;
	struct fsnap_error err = { 0 };
	if (!machine.kernel && machine_describe(&machine, &err) < 0)
		abort();
	return &machine;
}

#define PROGRAM "/dev/shm/fsnap-fuzz.exe"
#define DIRECTORY "/dev/shm/fsnap-fuzz.dir"

static const char *const directories[] = { DIRECTORY, DIRECTORY "/work", DIRECTORY "/work/dir" };
#define DIRECTORIES (sizeof(directories) / sizeof(directories[0]))

static void forget(void)
{
	unlink(PROGRAM);
	for (size_t i = DIRECTORIES; i-- > 0;)
		rmdir(directories[i]);
}

static void make_files(void)
{
	static bool made;
	if (made)
		return;
	made = true;
	for (size_t i = 0; i < DIRECTORIES; i++)
		mkdir(directories[i], 0700);
	cleanup_fd int fd = open(PROGRAM, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0700);
	if (fd < 0 || ftruncate(fd, 1 << 20) < 0)
		abort();
	atexit(forget);
}

static FILE *nowhere(void)
{
	static FILE *file;
	if (!file && !(file = fopen("/dev/null", "we")))
		abort();
	return file;
}

static int compile_it(struct restore *restore, struct fsnap_error *err)
{
	image_machine own = restore->model.machine;
	restore->model.machine = *here();
	int result = restore_fit(restore, err) < 0 ? -1 : restore_plan(restore, err);
	restore->model.machine = own; /* model_free() gives it back */
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct fuzz_image given;
	struct fsnap_error err = { 0 };
	make_files();
	if (fuzz_image_of_recipe(&given, bytes, length) < 0)
		return 0;
	struct fsnap_restore_options options = { .image = fuzz_image_file(&given), .store = "/dev/shm",
						 .changed = FSNAP_CHANGED_ACCEPT };
	struct fsnap_restore_report report = { 0 };
	struct restore restore;
	restore_begin(&restore, &options, &report);
	restore.explaining = true;
	if (!fuzz_refused(restore_open_image(&restore, &err), &err) && !fuzz_refused(compile_it(&restore, &err), &err))
		plans_explain(restore.plans, nowhere());
	restore_end(&restore);
	return 0;
}
