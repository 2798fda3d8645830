/* What a process writes while it is tracked is told; what it does to its mappings is not overlooked; and nothing of it
 * is left in the process. */
#include "engine/dump.h" /* before cmocka makes a macro of fail */
#include "engine/procfs.h"
#include "engine/seize.h"
#include "engine/track/track.h"
#include "store/scope.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)
#define SIZE (8 * MIB)
#define PAGE 4096

static struct fsnap_error err;

/* --- who is tracked: does what it is told, one letter at a time --------------------------- */

static char *memory;
static int orders[2], answers[2];

static void obey(char order)
{
	switch (order) {
	case 'w': /* every 16th page of the first MiB */
		for (size_t at = 0; at < MIB; at += 16 * PAGE)
			memory[at]++;
		break;
	case 'r':
		for (size_t at = 0; at < SIZE; at += PAGE)
			*(volatile char *)(memory + at);
		break;
	case 'd': /* whole page tables */
		madvise(memory + 2 * MIB, 4 * MIB, MADV_DONTNEED);
		break;
	case 'm': /* the same address, another mapping */
		munmap(memory + 6 * MIB, MIB);
		if (mmap(memory + 6 * MIB, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		    MAP_FAILED)
			_exit(3);
		memset(memory + 6 * MIB, 7, MIB);
		break;
	case 'k': { /* the kernel writes: one page */
		int zero = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
		if (read(zero, memory + MIB + PAGE, 100) != 100)
			_exit(3);
		close(zero);
		break;
	}
	case 'f':
		if (fork() == 0) {
			memset(memory, 9, MIB);
			_exit(0);
		}
		wait(NULL);
		break;
	case 'x':
		execl("/bin/sleep", "sleep", "100", NULL);
		_exit(3);
	}
}

static void live(void)
{
	char order;
	while (read(orders[0], &order, 1) == 1) {
		obey(order);
		if (write(answers[1], &order, 1) != 1)
			break;
	}
	_exit(0);
}

static pid_t child;

static void tell(const char *letters)
{
	for (char seen; *letters; letters++) {
		assert_int_equal(write(orders[1], letters, 1), 1);
		assert_int_equal(read(answers[0], &seen, 1), 1);
	}
}

/* --- the other side --------------------------------------------------------------------- */

static struct tree tree;
static struct text_cache texts;
static struct track track;
static bool possible;

/* What look_at_process() would find out, as much as is needed. */
static void look(struct process *process)
{
	image_mm *mm = &process->mm;
	struct procfs_map map;
	cleanup_free char *text = procfs_read(process->proc, "maps", NULL, &err);
	assert_non_null(text);
	for (char *cursor = text; procfs_next_map(&cursor, &map);) {
		mm->vmas.vmas_val = grow(mm->vmas.vmas_val, mm->vmas.vmas_len, sizeof(image_vma), &err);
		mm->vmas.vmas_val[mm->vmas.vmas_len++] = (image_vma){
			.start = map.start, .end = map.end, .prot = map.prot,
			.flags = map.shared ? MAP_SHARED : MAP_PRIVATE, .name = strdup(map.path),
			.kind = map.inode ? VMA_FILE : strncmp(map.path, "[v", 2) == 0 ? VMA_SPECIAL : VMA_ANON,
		};
	}
	assert_int_equal(text_find(process->live, mm->vmas.vmas_val, mm->vmas.vmas_len, &process->text, &texts, &err), 0);
	process->mem = openat(process->proc, "mem", O_RDWR | O_CLOEXEC);
	process->prepared = true;
}

static int begin(void **state)
{
	(void)state;
	err = (struct fsnap_error){ 0 };
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(memory, SIZE, MADV_NOHUGEPAGE);
	if (pipe2(orders, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0)
		return -1;
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memset(memory, 1, SIZE);
		live();
	}
	tell("r");
	struct process *process = seize_prepare(&tree, child, getpid(), &err);
	assert_non_null(process);
	look(process);
	possible = track_open(&track, process, &err) == 0;
	if (possible)
		assert_int_equal(track_register(&track, process, &err), 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	track_close(&track);
	tree_free(&tree);
	text_cache_free(&texts);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	munmap(memory, SIZE);
	for (int i = 0; i < 2; i++) {
		close(orders[i]);
		close(answers[i]);
	}
	return 0;
}

static void need_tracking(void)
{
	if (!possible) {
		assert_int_equal(err.code, FSNAP_E_UNSUPPORTED);
		print_message("skipped: %s\n", err.message);
		skip();
	}
}

struct pages {
	bool is[SIZE / PAGE];
	size_t n;
};

static int note(void *arg, uint64_t start, uint64_t end, struct fsnap_error *error)
{
	struct pages *pages = arg;
	(void)error;
	for (uint64_t at = start; at < end; at += PAGE)
		pages->is[(at - (uintptr_t)memory) / PAGE] = true;
	pages->n += (end - start) / PAGE;
	return 0;
}

static int take(struct pages *pages, size_t from, size_t to)
{
	*pages = (struct pages){ 0 };
	return track_take(&track, (uintptr_t)memory + from, (uintptr_t)memory + to, note, pages, &err);
}

static int ask(struct pages *pages, size_t from, size_t to)
{
	*pages = (struct pages){ 0 };
	return track_written(track.pagemap, (uintptr_t)memory + from, (uintptr_t)memory + to, note, pages, &err);
}

/* --- what must hold ----------------------------------------------------------------------- */

static void all_is_new_at_first(void **state)
{
	(void)state;
	need_tracking();
	struct pages pages;
	assert_int_equal(take(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, SIZE / PAGE);
	assert_int_equal(take(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, 0);
	tell("r");
	assert_int_equal(ask(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, 0);
}

static void writes_are_told(void **state)
{
	(void)state;
	need_tracking();
	struct pages pages;
	take(&pages, 0, SIZE);
	tell("wk");
	assert_int_equal(ask(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, 17);
	for (size_t i = 0; i < MIB / PAGE; i += 16)
		assert_true(pages.is[i]);
	assert_true(pages.is[MIB / PAGE + 1]); /* read(2) into it */
	assert_int_equal(take(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, 17);
	assert_int_equal(ask(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, 0);
}

/* Only track_has_table() tells of pages that went with their table. */
static void pages_given_back_are_noticed(void **state)
{
	(void)state;
	need_tracking();
	struct pages pages;
	take(&pages, 0, SIZE);
	tell("d");
	assert_int_equal(ask(&pages, 0, SIZE), 0);
	for (size_t at = 0; at < SIZE; at += PAGE) {
		bool gone = at >= 2 * MIB && at < 6 * MIB;
		bool held = !pages.is[at / PAGE] && track_has_table(track.pagemap, (uintptr_t)memory + at, &err) == 1;
		assert_int_equal(held, !gone);
	}
	assert_int_equal(track_has_table(-1, (uintptr_t)memory, &err), -1); /* what cannot be asked is not gone */
	err = (struct fsnap_error){ 0 };
}

static void another_mapping_is_lost(void **state)
{
	(void)state;
	need_tracking();
	struct pages pages;
	take(&pages, 0, SIZE);
	tell("m");
	assert_int_equal(ask(&pages, 0, SIZE), TRACK_LOST);
	assert_int_equal(ask(&pages, 0, 6 * MIB), 0);
	assert_int_equal(ask(&pages, 6 * MIB, 7 * MIB), TRACK_LOST);
}

static void a_child_does_not_count(void **state)
{
	(void)state;
	need_tracking();
	struct pages pages;
	take(&pages, 0, SIZE);
	tell("f");
	assert_int_equal(ask(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, 0);
	tell("w");
	assert_int_equal(ask(&pages, 0, SIZE), 0);
	assert_int_equal(pages.n, 16);
}

static void another_program_is_noticed(void **state)
{
	(void)state;
	need_tracking();
	assert_true(track_is_alive(&track));
	assert_int_equal(write(orders[1], "x", 1), 1);
	for (int i = 0; i < 1000 && track_is_alive(&track); i++)
		usleep(5000);
	assert_false(track_is_alive(&track));
}

/* Descriptors and mappings are what they were; smaps has forgotten it when we have. */
static void nothing_is_left(void **state)
{
	(void)state;
	need_tracking();
	struct process *process = tree.processes[0];
	char path[64], link[64] = "";
	for (int fd = 3; fd < 64; fd++) {
		snprintf(path, sizeof(path), "fd/%d", fd);
		if (readlinkat(process->proc, path, link, sizeof(link) - 1) > 0)
			assert_null(strstr(link, "userfaultfd"));
	}
	struct pages pages;
	take(&pages, 0, SIZE);
	tell("w");
	track_close(&track);
	cleanup_free char *smaps = procfs_read(process->proc, "smaps", NULL, &err);
	assert_null(strstr(smaps, " uw "));
	tell("wr");
}

/* --- what changes memory unseen -------------------------------------------------------------- */

static void who_evades_is_known_by_what_it_leads_to(void **state)
{
	(void)state;
	assert_non_null(track_evaded_by("anon_inode:[io_uring]", O_RDWR));
	assert_non_null(track_evaded_by("/srv/file", O_RDWR | O_DIRECT));
	assert_non_null(track_evaded_by("/dev/loop0", O_RDONLY | O_DIRECT));
	assert_null(track_evaded_by("/srv/file", O_RDWR));
	assert_null(track_evaded_by("/dev/pts/0", O_RDWR));
	assert_null(track_evaded_by("pipe:[1]", O_RDONLY | O_DIRECT)); /* packets */
}

int main(void)
{
#define TRACKED(test) cmocka_unit_test_setup_teardown(test, begin, end)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_evades_is_known_by_what_it_leads_to),
		TRACKED(all_is_new_at_first), TRACKED(writes_are_told), TRACKED(pages_given_back_are_noticed),
		TRACKED(another_mapping_is_lost), TRACKED(a_child_does_not_count), TRACKED(another_program_is_noticed),
		TRACKED(nothing_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
