/*
 * What a restore believes of an image whose checksums are right: an image of one process is good;
 * with one record changed, it is refused as contradicting itself, and nothing else happens.
 */
#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <unistd.h>

#include "engine/model.h"
#include "store/internal.h"

#include <cmocka.h> /* last: its fail() is a macro */

#include "tests/unit/test_store.h"

/* One process with one thread, one mapping, one descriptor; and a child that has ended. */
static struct user_regs_struct regs;
static image_vma vma;
static image_fd fd;
static image_thread thread, child_thread;
static image_process process, child;

static image_identity nowhere(void)
{
	return (image_identity){ .path = (char *)"/" };
}

static void make_records(void)
{
	regs = (struct user_regs_struct){ 0 };
	vma = (image_vma){ .start = 0x10000, .end = 0x12000, .prot = PROT_READ, .flags = MAP_PRIVATE,
			   .kind = VMA_ANON, .name = (char *)"" };
	fd = (image_fd){ .fd = 3, .file = 1 };
	thread = (image_thread){ .tid = 4000, .comm = (char *)"one",
				 .regs = { sizeof(regs), (char *)&regs } };
	child_thread = (image_thread){ .tid = 4001, .comm = (char *)"two" };
	process = (image_process){ .pid = 4000, .mm = 1, .cwd = nowhere(), .root = nowhere(),
				   .threads = { 1, &thread }, .fds = { 1, &fd } };
	child = (image_process){ .pid = 4001, .ppid = 4000, .zombie = 1, .cwd = nowhere(),
				 .root = nowhere(), .threads = { 1, &child_thread } };
}

static void put(struct image_writer *writer, uint32_t kind, xdrproc_t proc, void *record)
{
	struct fsnap_error err = { 0 };
	if (image_writer_put(writer, kind, true, "record", proc, record, &err) < 0)
		fail_msg("%s", err.message);
}

static void write_image(struct store *store)
{
	struct fsnap_error err = { 0 };
	image_tree tree = { .root_pid = 4000, .comm = (char *)"one", .host = (char *)"", .writer = (char *)"",
			    .hold = (char *)"", .boot_id = (char *)"" };
	image_machine machine = { .kernel = (char *)"" };
	image_mapped mapped = { .id = 1, .identity = nowhere() };
	image_mm mm = { .id = 1, .exe = 1, .vmas = { 1, &vma } };
	image_file file = { .id = 1, .kind = (char *)"device", .label = (char *)"/dev/null" };
	struct image_writer *writer = image_writer_open(store, "one", 0, &err);
	assert_non_null(writer);
	put(writer, IMAGE_TREE, (xdrproc_t)xdr_image_tree, &tree);
	put(writer, IMAGE_MACHINE, (xdrproc_t)xdr_image_machine, &machine);
	put(writer, IMAGE_MAPPED, (xdrproc_t)xdr_image_mapped, &mapped);
	put(writer, IMAGE_MM, (xdrproc_t)xdr_image_mm, &mm);
	put(writer, IMAGE_FILE, (xdrproc_t)xdr_image_file, &file);
	put(writer, IMAGE_PROCESS, (xdrproc_t)xdr_image_process, &process);
	put(writer, IMAGE_PROCESS, (xdrproc_t)xdr_image_process, &child);
	uint64_t bytes;
	if (image_writer_commit(writer, &bytes, &err) < 0)
		fail_msg("%s", err.message);
}

/* The code model_load() ends with for the records as they are now, which are made good again. */
static int load(void)
{
	struct fsnap_error err = { 0 };
	struct store *store = world_store(STORE_WRITE);
	write_image(store);
	struct image *image = image_open(store, "one", &err);
	if (!image)
		fail_msg("%s", err.message);
	struct model model = { 0 };
	model_load(&model, image, &err);
	model_free(&model);
	image_close(image);
	struct fsnap_error removing = { 0 };
	if (store_remove(store, "one", &removing) < 0)
		fail_msg("%s", removing.message);
	store_close(store);
	make_records();
	return err.code;
}

#define REFUSED(change)                                                        \
	do {                                                                   \
		change;                                                        \
		int code_ = load();                                            \
		if (code_ != FSNAP_E_IMAGE_CORRUPT)                            \
			fail_msg("%s: expected IMAGE_CORRUPT, seen %s", #change, \
				 fsnap_code_name(code_));                      \
	} while (0)

static void whole_image_is_good(void **state)
{
	(void)state;
	make_records();
	assert_int_equal(load(), FSNAP_E_OK);
}

/* A restore that fails kills what it made, by number. */
static void numbers_of_tasks(void **state)
{
	(void)state;
	make_records();
	REFUSED(process.pid = thread.tid = child.ppid = 0);
	REFUSED(process.pid = thread.tid = child.ppid = -1);
	REFUSED(child.pid = child_thread.tid = 0);
	REFUSED(child.pid = child_thread.tid = -1);
	REFUSED(child.pid = child_thread.tid = INT_MAX);
	REFUSED(child.pid = child_thread.tid = 4000);
	REFUSED(child_thread.tid = 4002);
}

static void family(void **state)
{
	(void)state;
	make_records();
	REFUSED(child.ppid = 4002);
	REFUSED(child.ppid = 4001);
	REFUSED(process.zombie = 1);
	REFUSED(child.threads.threads_len = 0);
	REFUSED(process.mm = 2);
	REFUSED(thread.regs.regs_len = 8);
}

static void descriptors(void **state)
{
	(void)state;
	make_records();
	REFUSED(fd.fd = -1);
	REFUSED(fd.fd = INT_MAX);
	REFUSED(fd.file = 0);
	REFUSED(fd.file = 2);
	REFUSED((process.fds.fds_len = 0, child.fds = process.fds, child.fds.fds_len = 1, fd.fd = INT_MAX));
}

static void mappings(void **state)
{
	(void)state;
	make_records();
	REFUSED(vma.start = 0x10001);
	REFUSED(vma.end = 0x10000);
	REFUSED(vma.end = 0x800000000000);
	REFUSED(vma.kind = 9);
	REFUSED((vma.kind = VMA_FILE, vma.object = 2));
	REFUSED((vma.kind = VMA_SHARED, vma.object = 2));
	REFUSED(vma.prot |= PROT_GROWSDOWN);
	REFUSED(vma.flags |= MAP_FIXED);
	REFUSED(vma.flags |= MAP_POPULATE);
	REFUSED(vma.flags = 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whole_image_is_good, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(numbers_of_tasks, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(family, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(descriptors, world_set_up, world_tear_down),
		cmocka_unit_test_setup_teardown(mappings, world_set_up, world_tear_down),
	};
	world_base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
