/*
 * Pseudo-terminals whose master side is in the tree: made anew, both ends, with
 * what waits in them.  A slave whose master is somebody else's is the terminal
 * the tree was attached to (tty.c), or, when the master is gone, hung up.
 *
 * The master's image_file holds the state of the pair; slaves only say which pair
 * is theirs.  Sessions take their terminal in a plan: terminals_take().
 */
#include "engine/kinds/pty.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { FIRST_MAJOR = 136, LAST_MAJOR = 143, PER_MAJOR = 256 }; /* devices.txt: Unix98 PTY slaves */

#define LOST ((uint64_t)1 << 32) /* added to the key of what has no master any more */

static bool is_slave_device(dev_t device)
{
	return major(device) >= FIRST_MAJOR && major(device) <= LAST_MAJOR;
}

static unsigned slave_index(dev_t device)
{
	/* The kernel's minor numbers have 20 bits, and go on within the first major. */
	return (major(device) - FIRST_MAJOR) * PER_MAJOR + minor(device);
}

/* The terminal behind /dev/tty; 0: none, or no pty. */
static dev_t behind_dev_tty(const struct fd_view *fd)
{
	unsigned device = 0;
	if (fd->stat.st_rdev != makedev(5, 0) || ioctl(fd->dup, TIOCGDEV, &device) < 0)
		return 0;
	/* linux/kdev_t.h, new_decode_dev() */
	dev_t decoded = makedev((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
	return is_slave_device(decoded) ? decoded : 0;
}

static bool is_master(const struct fd_view *fd)
{
	return fd->stat.st_rdev == makedev(5, 2);
}

static bool pty_matches(const struct fd_view *fd)
{
	if (!S_ISCHR(fd->stat.st_mode) || (fd->flags & O_PATH) || fd->dup < 0)
		return false;
	return is_master(fd) || is_slave_device(fd->stat.st_rdev) || behind_dev_tty(fd);
}

static uint64_t pty_key(const void *in)
{
	const image_file_pty *state = in;
	return state->index | (state->side == PTY_HUNG_UP ? LOST : 0);
}

/* --- dump --------------------------------------------------------------------- */

static int save_termios(int fd, image_file_pty *state, struct fsnap_error *err)
{
	struct termios2 termios;
	if (ioctl(fd, TCGETS2, &termios) < 0)
		return 0; /* hung up: there are no settings */
	return set_bytes(&state->termios.termios_len, &state->termios.termios_val, &termios, sizeof(termios),
			 err);
}

static void save_node(image_file_pty *state)
{
	char path[64];
	struct stat node;
	snprintf(path, sizeof(path), "/dev/pts/%u", state->index);
	if (stat(path, &node) < 0)
		return;
	state->uid = node.st_uid;
	state->gid = node.st_gid;
	state->mode = node.st_mode & 07777;
}

static int unread_unseen(const struct fd_view *fd, struct fsnap_error *err)
{
	int waiting = 0;
	if (ioctl(fd->dup, FIONREAD, &waiting) == 0 && waiting)
		return refuse_fd(fd, err, "The kernel does not let anybody look at them without taking them "
					  "(that needs BPF and its type information): dump when they have "
					  "been read.",
				 "%d bytes of a terminal that were not read", waiting);
	dump_note(fd->dump, "what was typed into %s and not read yet is not in the image", fd->link);
	return 0;
}

static int save_master(const struct fd_view *fd, image_file_pty *state, struct fsnap_error *err)
{
	struct pollfd end = {.fd = fd->dup};
	struct winsize size = {0};
	int value = 0;
	pid_t pid;
	if (ioctl(fd->dup, TIOCGPTN, &state->index) < 0)
		return refuse_fd(fd, err, "Close it before the dump.", "a terminal that was never opened");
	if (ioctl(fd->dup, TIOCGETD, &value) == 0 && value != 0)
		return refuse_fd(fd, err, "Let it go back to the ordinary one first.",
				 "a terminal with line discipline %d", value);
	state->locked = ioctl(fd->dup, TIOCGPTLCK, &value) == 0 && value;
	state->packet = ioctl(fd->dup, TIOCGPKT, &value) == 0 && value;
	state->session = ioctl(fd->dup, TIOCGSID, &pid) == 0 ? pid : 0;
	state->foreground = ioctl(fd->dup, TIOCGPGRP, &pid) == 0 ? pid : 0;
	/* All slaves closed, after at least one was open: pty_close(), drivers/tty/pty.c. */
	state->closed = poll(&end, 1, 0) == 1 && (end.revents & POLLHUP);
	save_node(state);
	if (ioctl(fd->dup, TIOCGWINSZ, &size) == 0 &&
	    set_bytes(&state->winsize.winsize_len, &state->winsize.winsize_val, &size, sizeof(size), err) < 0)
		return -1;
	if (save_termios(fd->dup, state, err) < 0)
		return -1;
	int seen = pty_look(fd, state, &state->slaves, err);
	return seen > 0 ? unread_unseen(fd, err) : seen;
}

static int pty_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_pty *state = out;
	file->flags |= (unsigned)fcntl(fd->dup, F_GETFL) & O_CLOEXEC; /* TIOCGPTPEER leaves it there */
	dev_t behind = behind_dev_tty(fd);
	int value = 0;
	state->exclusive = ioctl(fd->dup, TIOCGEXCL, &value) == 0 && value; /* each side for itself */
	state->side = is_master(fd) ? PTY_MASTER : behind ? PTY_CONTROLLING : PTY_SLAVE;
	if (set_string(&state->path, fd->link, err) < 0)
		return -1;
	if (state->side == PTY_MASTER)
		return save_master(fd, state, err);
	state->index = slave_index(behind ? behind : fd->stat.st_rdev);
	if (save_termios(fd->dup, state, err) < 0)
		return -1;
	if (!state->termios.termios_len && errno == EIO)
		state->side = PTY_HUNG_UP;
	return 0;
}

static image_file_pty *master_in_tree(struct dump *dump, const image_file_pty *slave)
{
	image_file_pty *state;
	for (size_t at = 0; (state = dump_file_next(dump, &kind_pty, pty_key(slave), &at, NULL));)
		if (state->side == PTY_MASTER)
			return state;
	return NULL;
}

static unsigned slaves_in_tree(struct dump *dump, const image_file_pty *master)
{
	unsigned n = 0;
	const image_file_pty *state;
	for (size_t at = 0; (state = dump_file_next(dump, &kind_pty, pty_key(master), &at, NULL));)
		n += state->side != PTY_MASTER;
	return n;
}

static int master_save_links(struct dump *dump, const image_file_pty *state)
{
	if (state->slaves > slaves_in_tree(dump, state))
		dump_note(dump, "/dev/pts/%u is open outside the tree, too: there it hangs up, and does not "
				"come back", state->index);
	if (state->session && !tree_find(dump_tree(dump), state->session))
		dump_note(dump, "/dev/pts/%u is the terminal of session %d, which is outside the tree: it comes "
				"back without a session", state->index, state->session);
	return 0;
}

static int pty_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_pty *state = out;
	if (state->side == PTY_MASTER)
		return master_save_links(dump, state);
	int number = stdio_number(dump, file);
	if (master_in_tree(dump, state) || (state->side == PTY_HUNG_UP && number < 0))
		return 0;
	char termios[sizeof(struct termios2)];
	unsigned length = state->termios.termios_len;
	memcpy(termios, state->termios.termios_val, length);
	if (stdio_become(file, out, number < 0 ? 0 : number, err) < 0)
		return -1;
	image_file_stdio *terminal = out;
	terminal->terminal = 1;
	return set_bytes(&terminal->termios.termios_len, &terminal->termios.termios_val, termios, length, err);
}

/* --- restore -------------------------------------------------------------------- */

static int failed(const image_file *file, struct fsnap_error *err, const char *step)
{
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): %s", file->id, file->label, step);
}

/* The kernel gives out the lowest number that is free (devpts_new_index()): what lies below ours is
 * taken for a moment. */
static int open_master(struct restore *restore, const image_file *file, const image_file_pty *state)
{
	cleanup_free int *lower = NULL;
	size_t n = 0;
	int fd, unlocked = 0;
	unsigned index = 0;
	unsigned flags = (file->flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC;
	for (;;) {
		fd = open(strcmp(state->path, "/dev/pts/ptmx") ? "/dev/ptmx" : state->path, (int)flags | O_NONBLOCK);
		if (fd < 0 || ioctl(fd, TIOCGPTN, &index) < 0 || index >= state->index)
			break;
		int *more = realloc(lower, (n + 1) * sizeof(*lower));
		if (!more)
			break;
		lower = more;
		lower[n++] = fd;
	}
	if (fd >= 0 && index != state->index)
		restore_note(restore, "terminal /dev/pts/%u is /dev/pts/%u now: its number was taken",
			     state->index, index);
	while (n)
		close(lower[--n]);
	if (fd >= 0)
		ioctl(fd, TIOCSPTLCK, &unlocked);
	return fd;
}

static int set_up(const image_file *file, const image_file_pty *state, int master, struct fsnap_error *err)
{
	unsigned index;
	char path[64];
	if (state->winsize.winsize_len == sizeof(struct winsize) &&
	    ioctl(master, TIOCSWINSZ, state->winsize.winsize_val) < 0)
		return failed(file, err, "window size");
	if (state->termios.termios_len != sizeof(struct termios2))
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u (%s): settings of a terminal", file->id,
			    file->label);
	if (pty_fill(master, state) < 0)
		return failed(file, err, "what waited in the terminal");
	if (ioctl(master, TIOCGPTN, &index) == 0 && state->mode) {
		snprintf(path, sizeof(path), "/dev/pts/%u", index);
		if (chown(path, state->uid, state->gid) < 0 || chmod(path, state->mode) < 0)
			return failed(file, err, "owner of the terminal");
	}
	int packet = 1;
	if (state->packet && ioctl(master, TIOCPKT, &packet) < 0)
		return failed(file, err, "packet mode");
	if (state->closed) {
		int peer = pty_peer(master, O_RDWR);
		if (peer < 0)
			return failed(file, err, "open and close the slave");
		close(peer);
	}
	return 0;
}

static int make_master(struct restore *restore, const image_file *file, const image_file_pty *state,
		       struct fsnap_error *err)
{
	cleanup_fd int master = open_master(restore, file, state);
	if (master < 0)
		return failed(file, err, "open a pseudo-terminal");
	return set_up(file, state, master, err) < 0 ? -1 : steal_fd(&master);
}

/* The workshop's master of this pair, made if need be; -1 with errno 0: the image has none. */
static int master_of(struct restore *restore, const image_file_pty *slave, struct fsnap_error *err)
{
	const image_file *file;
	const image_file_pty *state;
	for (size_t at = 0; (state = restore_file_next(restore, &kind_pty, pty_key(slave), &at, &file));) {
		if (state->side != PTY_MASTER)
			continue;
		if (restore_fd(restore, file->id) >= 0)
			return restore_fd(restore, file->id);
		int fd = make_master(restore, file, state, err);
		if (fd < 0)
			return -1;
		restore_give(restore, file->id, fd);
		return restore_fd(restore, file->id);
	}
	return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "the master of terminal %u is missing", slave->index);
}

static int pty_make(struct restore *restore, const image_file *file, const void *in,
		    struct fsnap_error *err)
{
	const image_file_pty *state = in;
	if (state->side == PTY_MASTER)
		return make_master(restore, file, state, err);
	int fd;
	if (state->side == PTY_HUNG_UP) {
		fd = pty_open_hung_up(file->flags);
	} else {
		int master = master_of(restore, state, err);
		if (master < 0)
			return -1;
		fd = state->side == PTY_CONTROLLING ?
			     pty_open_controlling(master, file->flags) :
			     pty_open_slave(master, file->flags);
	}
	return fd < 0 ? failed(file, err, "open the terminal") : fd;
}

static bool pty_unsettled(const void *in)
{
	const image_file_pty *state = in;
	return state->exclusive || state->locked;
}

/* What would be in the way of making the rest comes last. */
static void pty_settle(struct restore *restore, const image_file *file, const void *in,
		       struct plans *plans, uint32_t task, int fd)
{
	(void)restore;
	(void)file;
	const image_file_pty *state = in;
	int locked = 1;
	if (!pty_unsettled(state))
		return;
	plan_note(plans, "terminal %u", state->index);
	if (state->exclusive)
		plan_call(plans, task, SYS_ioctl, IMM(fd), IMM(TIOCEXCL));
	if (state->locked)
		plan_call(plans, task, SYS_ioctl, IMM(fd), IMM(TIOCSPTLCK),
			  DATA(plans_data(plans, &locked, sizeof(locked), 4)));
}

const struct file_kind kind_pty = {
	.name = "pty",
	.keeps = "pairs with the master in the tree: number if it is free, settings, window size, packet mode, "
		 "locks, bytes not read in both directions, session, foreground, a side that is closed; "
		 "terminals that have hung up",
	.refuses = "other line disciplines; bytes not read, where the kernel does not let us look",
	.shown_by = "tty_*",
	.xdr = (xdrproc_t)xdr_image_file_pty,
	.key = pty_key,
	.matches = pty_matches,
	.save = pty_save,
	.save_links = pty_save_links,
	.make = pty_make,
	.settle = pty_settle,
	.unsettled = pty_unsettled,
};
