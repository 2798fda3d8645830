#include "engine/shelves.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/helper.h"
#include "engine/restore.h"

#define OWN 64	   /* descriptors fsnap itself has open, generously */
#define STREAMS 16 /* standard streams, the image, shelves */

int shelves_plan(struct restore *restore, size_t fixed, struct fsnap_error *err)
{
	struct shelves *shelves = &restore->shelves;
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "the limit on open files");
	size_t files = restore->model.n_files + restore->model.n_ghosts;
	/* Above the program's numbers: standard streams, what is handed in, the image, shelves. */
	size_t top = (size_t)restore->bench + 2 * restore->handed.n + STREAMS;
	shelves->needed = top + fixed + files + OWN > limit.rlim_cur;
	if (!shelves->needed)
		return 0;
	size_t least = top > fixed + 3 * OWN ? top : fixed + 3 * OWN;
	if (least > limit.rlim_cur) {
		fail(err, FSNAP_E_SYSTEM, EMFILE, "the tree has a descriptor %d, and fsnap may open %lu",
		     restore->bench - 1, (unsigned long)limit.rlim_cur);
		return error_hint(err, "raise the hard limit to %zu: ulimit -Hn, LimitNOFILE= of systemd", least);
	}
	size_t room = limit.rlim_cur - fixed - OWN;
	shelves->room = room > 2 * SHELF_BORROWED ? room - SHELF_BORROWED : room / 2;
	shelves->most = shelves->room < SHELF_BORROWED ? shelves->room : SHELF_BORROWED;
	return 0;
}

_Noreturn static void hold(void *arg, pid_t parent)
{
	sigset_t all;
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigfillset(&all);
	while (getppid() == parent)
		syscall(SYS_rt_sigtimedwait, &all, NULL, NULL, 8); /* and none of them wakes it */
	_exit(0);
}

static int add_shelf(struct restore *restore, struct fsnap_error *err)
{
	struct shelves *shelves = &restore->shelves;
	struct shelf *more = reallocarray(shelves->list, shelves->n + 1, sizeof(*more));
	if (!more)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "descriptors");
	shelves->list = more;
	pid_t pid = helper_spawn(restore, hold, NULL);
	if (pid < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a process to hold descriptors");
	more[shelves->n++] = (struct shelf){ pid, -1 };
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a process to hold descriptors");
	more[shelves->n - 1].pidfd = workshop_bench(restore, pidfd, err);
	return more[shelves->n - 1].pidfd < 0 ? -1 : 0;
}

static void put_away(struct shelves *shelves, struct workshop_place *place, int *fd)
{
	if (*fd < 0)
		return;
	if (!place->shelf)
		*place = (struct workshop_place){ (unsigned)shelves->n, *fd };
	close(*fd);
	*fd = -1;
}

int shelves_put(struct restore *restore, struct fsnap_error *err)
{
	struct shelves *shelves = &restore->shelves;
	if (!shelves->needed || (shelves->loose && add_shelf(restore, err) < 0))
		return shelves->needed ? -1 : 0;
	/* What was only borrowed goes back, too. */
	for (size_t i = 0; i < restore->model.n_files; i++)
		put_away(shelves, &restore->files[i].place, &restore->files[i].fd);
	for (size_t i = 0; i < restore->model.n_ghosts; i++) {
		const image_ghost *ghost = &restore->model.ghosts[i];
		if (ghost->kind == GHOST_DELETED || ghost->kind == GHOST_DIRECTORY)
			put_away(shelves, &restore->ghost_place[ghost->id], &restore->ghost_fd[ghost->id]);
	}
	shelves->loose = 0;
	for (size_t i = 0; i < SHELF_BORROWED; i++)
		shelves->borrowed[i] = 0;
	return 0;
}

int shelves_tidy(struct restore *restore, struct fsnap_error *err)
{
	struct shelves *shelves = &restore->shelves;
	return ++shelves->loose < shelves->room ? 0 : shelves_put(restore, err);
}

void shelves_close(struct restore *restore)
{
	struct shelves *shelves = &restore->shelves;
	for (size_t i = 0; i < shelves->n; i++) {
		kill(shelves->list[i].pid, SIGKILL);
		waitpid(shelves->list[i].pid, NULL, __WALL);
		if (shelves->list[i].pidfd >= 0)
			close(shelves->list[i].pidfd);
	}
	free(shelves->list);
	*shelves = (struct shelves){ 0 };
}

void shelves_retire(struct restore *restore)
{
	for (size_t i = 0; i < restore->model.n_files; i++) /* some kinds have a last word to say to theirs */
		if (file_kind_find(restore->model.files[i].kind)->release)
			return;
	shelves_close(restore);
}

/* The one taken down longest ago goes back. */
static void make_way(struct restore *restore)
{
	struct shelves *shelves = &restore->shelves;
	unsigned file = shelves->borrowed[shelves->next];
	if (file && file == shelves->pinned) {
		shelves->next = (shelves->next + 1) % shelves->most;
		file = shelves->borrowed[shelves->next];
	}
	if (file && restore->files[file - 1].fd >= 0) {
		close(restore->files[file - 1].fd);
		restore->files[file - 1].fd = -1;
	}
}

int shelves_borrow(struct restore *restore, unsigned file)
{
	struct shelves *shelves = &restore->shelves;
	struct workshop_file *made = &restore->files[file - 1];
	const struct shelf *shelf = &shelves->list[made->place.shelf - 1];
	make_way(restore);
	int fd = (int)syscall(SYS_pidfd_getfd, shelf->pidfd, made->place.number, 0);
	if (fd < 0)
		return -1;
	/* Once plans are being made, what they name must be where the tasks look for it. */
	made->fd = restore->plans ? workshop_bench(restore, fd, NULL) : fd;
	shelves->borrowed[shelves->next] = restore->plans ? 0 : file;
	shelves->next = (shelves->next + 1) % shelves->most;
	return made->fd;
}

/* The number is taken first, by anything: pidfd_getfd() gives the lowest that is free, and dup3() wants
 * two different ones. */
void shelves_take(struct restore *restore, uint32_t task, unsigned file, int fd, bool cloexec)
{
	struct plans *plans = restore->plans;
	const struct workshop_place *place = &restore->files[file - 1].place;
	int pidfd = restore->shelves.list[place->shelf - 1].pidfd;
	plan_call(plans, task, SYS_dup3, IMM(pidfd), IMM(fd), IMM(0));
	plan_call(plans, task, SYS_pidfd_getfd, IMM(pidfd), IMM(place->number), IMM(0));
	uint32_t slot = plan_result(plans);
	plan_call(plans, task, SYS_dup3, SLOT(slot), IMM(fd), IMM(cloexec ? O_CLOEXEC : 0));
	plan_call(plans, task, SYS_close, SLOT(slot));
}
