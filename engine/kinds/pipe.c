/*
 * Pipes and FIFOs: one kind, because a FIFO is a pipe found by path.
 *
 * Each image_file is one end.  All ends of a pipe share its `pipe` number; what
 * is in it is stored with one read end.  The content is looked at with tee(2),
 * which takes nothing out.
 *
 * A pipe whose other end is held by nobody in the tree is either broken (the
 * other end was closed: end of file, EPIPE) and comes back so, or it leads
 * outside: then it must be the root's stdio.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { PIPE_READER = 0, PIPE_WRITER = 1, PIPE_BOTH = 2, PIPE_NONE = 3 };

static bool is_anonymous(const struct fd_view *fd)
{
	return !strncmp(fd->link, "pipe:", 5);
}

/* O_PATH of what has a name is found by that (regular.c). */
static bool pipe_matches(const struct fd_view *fd)
{
	return S_ISFIFO(fd->stat.st_mode) && fd->dup >= 0 &&
	       (!(fd->flags & O_PATH) || is_anonymous(fd) || fd->stat.st_nlink == 0);
}

static uint64_t pipe_key(const void *state)
{
	return ((const image_file_pipe *)state)->pipe;
}

static bool has_content(image_file_pipe *state)
{
	return state->content.content_len > 0;
}

/* --- dump ------------------------------------------------------------------- */

/* A read(2) ends where a packet does, whatever else waits (pipe_read() in fs/pipe.c); tee(2) leaves packets what
 * they are. A byte behind all of it tells whether the last was one. Fills state->content; -1: not all is there. */
static int read_pieces(int from, int to, image_file_pipe *state, size_t waiting)
{
	char *at = state->content.content_val, *end = at + waiting;
	bool marked = write(to, "", 1) == 1;
	for (;;) {
		ssize_t got = read(from, at, (size_t)(end - at) + marked);
		if (got <= 0)
			break;
		at += got;
		if (at > end - !marked)
			break; /* it took the byte along: no packet */
		unsigned *more = realloc(state->packets.packets_val, (state->packets.packets_len + 1) * sizeof(*more));
		if (!more)
			return -1;
		state->packets.packets_val = more;
		more[state->packets.packets_len++] = (unsigned)got;
	}
	state->content.content_len = (unsigned)waiting;
	return at < end ? -1 : 0;
}

static int tee_content(const struct fd_view *fd, image_file_pipe *state, struct fsnap_error *err)
{
	int waiting, copy[2];
	if (ioctl(fd->dup, FIONREAD, &waiting) < 0 || waiting <= 0)
		return 0;
	if (pipe2(copy, O_CLOEXEC | O_NONBLOCK) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "pipe");
	cleanup_fd int from = copy[0], to = copy[1];
	/* As many slots as the pipe has, or content in small pieces would not fit; and one. */
	if (fcntl(to, F_SETPIPE_SZ, state->capacity + STORE_PAGE) < 0 && fcntl(to, F_SETPIPE_SZ, state->capacity) < 0 &&
	    errno != EPERM)
		return fail(err, FSNAP_E_SYSTEM, errno, "pipe of %u bytes", state->capacity);
	state->content.content_val = malloc((size_t)waiting + 1);
	if (!state->content.content_val)
		return no_memory(err);
	ssize_t seen = tee(fd->dup, to, (size_t)waiting, SPLICE_F_NONBLOCK);
	if (seen == waiting && read_pieces(from, to, state, (size_t)waiting) == 0)
		return 0;
	return refuse_fd(fd, err, "Run fsnap as root, or raise /proc/sys/fs/pipe-user-pages-soft.",
			 "a pipe whose %d bytes cannot be copied", waiting);
}

static bool someone_reads_or_writes(int end, unsigned writer)
{
	struct pollfd poll_end = {.fd = end, .events = 0};
	if (poll(&poll_end, 1, 0) < 0)
		return true;
	return !(poll_end.revents & (writer ? POLLERR : POLLHUP));
}

static const char *const deleted = " (deleted)";

/* Its path, or that which it had. */
static int save_name(const struct fd_view *fd, image_file_pipe *state, struct fsnap_error *err)
{
	bool fifo = !is_anonymous(fd), removed = fifo && fd->stat.st_nlink == 0;
	if (set_string(&state->path, fifo && !removed ? fd->link : "", err) < 0 ||
	    set_string(&state->removed, removed ? fd->link : "", err) < 0)
		return -1;
	size_t length = strlen(state->removed), mark = strlen(deleted);
	if (length > mark && strcmp(state->removed + length - mark, deleted) == 0)
		state->removed[length - mark] = '\0';
	state->mode = fd->stat.st_mode;
	state->uid = fd->stat.st_uid;
	state->gid = fd->stat.st_gid;
	return 0;
}

static int pipe_save(const struct fd_view *fd, image_file *file, void *out,
		     struct fsnap_error *err)
{
	(void)file;
	image_file_pipe *state = out;
	unsigned access = fd->flags & O_ACCMODE;
	state->pipe = fd->stat.st_ino ^ (uint64_t)fd->stat.st_dev << 48;
	if (save_name(fd, state, err) < 0)
		return -1;
	if (fd->flags & O_PATH) {
		state->writer = PIPE_NONE;
		return 0;
	}
	state->writer = access == O_RDONLY ? PIPE_READER : access == O_WRONLY ? PIPE_WRITER : PIPE_BOTH;
	state->capacity = (unsigned)fcntl(fd->dup, F_GETPIPE_SZ);
	state->lonely = state->writer != PIPE_BOTH && !someone_reads_or_writes(fd->dup, state->writer);
	return state->writer == PIPE_WRITER ? 0 : tee_content(fd, state, err);
}

/* What the tree holds of one pipe. */
struct pipe_ends {
	bool reader, writer;
	bool stored;  /* an end before this one has the content already */
};

static struct pipe_ends ends_in_tree(struct dump *dump, const image_file_pipe *state)
{
	struct pipe_ends ends = {0};
	image_file *file;
	image_file_pipe *other;
	bool before = true;
	for (size_t at = 0; (other = dump_file_next(dump, &kind_pipe, state->pipe, &at, &file));) {
		before = before && other != state;
		ends.reader |= other->writer == PIPE_READER || other->writer == PIPE_BOTH;
		ends.writer |= other->writer == PIPE_WRITER || other->writer == PIPE_BOTH;
		ends.stored |= before && has_content(other);
	}
	return ends;
}

/* Every end of it in the tree becomes what the restoring process has as `number`. */
static int become_stdio(struct dump *dump, image_file_pipe *state, int number,
			struct fsnap_error *err)
{
	uint64_t pipe = state->pipe;
	image_file *file;
	image_file_pipe *other;
	if (has_content(state))
		dump_note(dump, "%u bytes waiting on standard stream %d are not in the image",
			  state->content.content_len, number);
	for (size_t at = 0; (other = dump_file_next(dump, &kind_pipe, pipe, &at, &file));)
		if (stdio_become(file, other, number, err) < 0)
			return -1;
	return 0;
}

/* Any end of the pipe may be the one that is the root's stdio. */
static int pipe_stdio_number(struct dump *dump, const image_file_pipe *state)
{
	image_file *file;
	const image_file_pipe *other;
	for (size_t at = 0; (other = dump_file_next(dump, &kind_pipe, state->pipe, &at, &file));) {
		int number = stdio_number(dump, file);
		if (number >= 0)
			return number;
	}
	return -1;
}

static int pipe_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_pipe *state = out;
	struct pipe_ends ends = ends_in_tree(dump, state);
	if (!state->path[0] && !state->lonely && state->writer != PIPE_NONE && !(ends.reader && ends.writer)) {
		int number = pipe_stdio_number(dump, state);
		if (number >= 0)
			return become_stdio(dump, state, number, err);
		return refuse_outside(dump, file, err, "a pipe whose %s end is held by a process outside the tree",
				      ends.reader ? "write" : "read");
	}
	if (has_content(state) && ends.stored) {
		free(state->content.content_val);
		free(state->packets.packets_val);
		state->content.content_val = NULL;
		state->packets.packets_val = NULL;
		state->content.content_len = state->packets.packets_len = 0;
	}
	return 0;
}

/* --- restore ------------------------------------------------------------------ */

static int failed(const image_file *file, struct fsnap_error *err, const char *step)
{
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): %s", file->id, file->label, step);
}

static int write_piece(int fd, const char *from, unsigned size, bool packet)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, packet ? flags | O_DIRECT : flags & ~O_DIRECT) < 0)
		return -1;
	return size == 0 || write(fd, from, size) == (ssize_t)size ? 0 : -1;
}

/* Its packets, what is behind them, and no packet mode: each end gets its own flags later. */
static int write_content(int fd, const image_file_pipe *state)
{
	const char *at = state->content.content_val, *end = at + state->content.content_len;
	for (u_int i = 0; i < state->packets.packets_len; i++) {
		unsigned size = state->packets.packets_val[i];
		if (size > (size_t)(end - at)) {
			errno = EINVAL;
			return -1;
		}
		/* What is longer than a packet can be had something before it that was none. */
		unsigned plain = size > STORE_PAGE ? size - STORE_PAGE : 0;
		if ((plain && write_piece(fd, at, plain, false) < 0) ||
		    write_piece(fd, at + plain, size - plain, true) < 0)
			return -1;
		at += size;
	}
	return write_piece(fd, at, (unsigned)(end - at), false);
}

/* Capacity and content; `fd` writes to the pipe and never blocks. */
static int fill(struct restore *restore, const image_file *file, const image_file_pipe *state,
		int fd, struct fsnap_error *err)
{
	const image_file_pipe *other, *content = state;
	for (size_t at = 0; (other = restore_file_next(restore, &kind_pipe, state->pipe, &at, NULL));)
		if (other->content.content_len)
			content = other;
	if (state->capacity && state->capacity != (unsigned)fcntl(fd, F_GETPIPE_SZ) &&
	    fcntl(fd, F_SETPIPE_SZ, state->capacity) < 0) {
		failed(file, err, "capacity");
		return error_hint(err, "Run fsnap as root, or raise /proc/sys/fs/pipe-max-size.");
	}
	if (content->content.content_len && write_content(fd, content) < 0)
		return failed(file, err, "writing back what was in the pipe");
	return 0;
}

static int reopen(int fd, unsigned flags)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (int)(flags & (O_ACCMODE | O_DIRECT | O_PATH)) | O_NONBLOCK | O_CLOEXEC);
}

/* The first end made of a pipe makes the other, too, if the image has one. */
static int make_pipe(struct restore *restore, const image_file *file, const image_file_pipe *state,
		     struct fsnap_error *err)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return failed(file, err, "pipe");
	cleanup_fd int reader = ends[0], writer = ends[1];
	if (fill(restore, file, state, writer, err) < 0)
		return -1;
	if (state->writer >= PIPE_BOTH) {
		int other = reopen(reader, state->writer == PIPE_NONE ? O_PATH : O_RDWR);
		return other < 0 ? failed(file, err, "open once more") : other;
	}
	const image_file *candidate;
	const image_file_pipe *other;
	for (size_t at = 0; (other = restore_file_next(restore, &kind_pipe, state->pipe, &at, &candidate));) {
		if (other->writer != !state->writer)
			continue;
		restore_give(restore, candidate->id, steal_fd(state->writer ? &reader : &writer));
		break;
	}
	return steal_fd(state->writer ? &writer : &reader);
}

static void remove_fifo(const char *name)
{
	unlink(name);
}

/* A FIFO that has lost its name has it again for a moment; -1: it cannot. */
static int nameless_fifo(struct restore *restore, const image_file_pipe *state)
{
	struct stat there;
	if (lstat(state->removed, &there) == 0)
		return -1;
	restore_takes_back(restore, remove_fifo, state->removed);
	bool named = mkfifo(state->removed, state->mode & 07777) == 0;
	int both = named ? open(state->removed, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
	if (named)
		unlink(state->removed);
	restore_not_made(restore);
	if (both < 0 || (fchown(both, state->uid, state->gid) == 0 && fchmod(both, state->mode & 07777) == 0) ||
	    errno == EPERM)
		return both;
	close(both);
	return -1;
}

/* One end of it; the first that is made has what was in it. */
static int make_nameless(struct restore *restore, const image_file *file, const image_file_pipe *state, int made,
			 struct fsnap_error *err)
{
	cleanup_fd int both = made < 0 ? nameless_fifo(restore, state) : reopen(made, O_RDWR);
	if (both < 0 && made < 0) {
		restore_note(restore, "the FIFO that was %s, and was removed, is an unnamed pipe now", state->removed);
		return make_pipe(restore, file, state, err);
	}
	if (both < 0 || (made < 0 && fill(restore, file, state, both, err) < 0))
		return error_is_set(err) ? -1 : failed(file, err, "open once more");
	int fd = reopen(both, file->flags);
	return fd < 0 ? failed(file, err, "open once more") : fd;
}

static int make_fifo(struct restore *restore, const image_file *file, const image_file_pipe *state,
		     bool first, struct fsnap_error *err)
{
	/* Held open meanwhile: opening to write fails while nobody reads, and content needs a holder. */
	struct stat now;
	bool other = stat(state->path, &now) == 0 && !S_ISFIFO(now.st_mode); /* some devices take being opened for an order */
	cleanup_fd int both = other ? -1 : open(state->path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (!other && both < 0 && errno == ENOENT) {
		fail(err, FSNAP_E_FILE_MISSING, 0, "the FIFO %s is not there", state->path);
		return error_hint(err, "Make it again with: mkfifo %s, or say with --map where it is now",
				  state->path);
	}
	if (!other && both < 0)
		return failed(file, err, "open");
	if (other || fstat(both, &now) < 0 || !S_ISFIFO(now.st_mode)) {
		fail(err, FSNAP_E_FILE_CHANGED, 0, "%s is not a FIFO any more", state->path);
		return error_hint(err, "Put the FIFO back, or say with --map where it is now.");
	}
	int waiting = 0;
	ioctl(both, FIONREAD, &waiting);
	if (first && restore_is_beside(restore))
		restore_note(restore, "%s is the original's, too; what it held when saved is not added", state->path);
	else if (first && waiting)
		restore_note(restore, "%s holds other data; what it held when saved is not added",
			     state->path);
	else if (first && fill(restore, file, state, both, err) < 0)
		return -1;
	unsigned kept = O_ACCMODE | O_DIRECT | O_NOFOLLOW | O_NOATIME;
	int fd = open(state->path, (int)(file->flags & kept) | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? failed(file, err, "open") : fd;
}

static int pipe_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	image_file_pipe *state = in;
	if (state->removed[0] && restore_remap(restore, &state->removed, err) < 0)
		return -1;
	return restore_remap(restore, &state->path, err);
}

static int pipe_make(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err);

/* Any that is made already; -1: none. What O_PATH leads to holds nothing, so it waits for one that does. */
static int made_before(struct restore *restore, const image_file_pipe *state, struct fsnap_error *err)
{
	const image_file *candidate;
	const image_file_pipe *other;
	int made = -1;
	for (size_t at = 0; made < 0 && (other = restore_file_next(restore, &kind_pipe, state->pipe, &at, &candidate));) {
		made = restore_fd(restore, candidate->id);
		if (made >= 0 || state->writer != PIPE_NONE || other->writer == PIPE_NONE)
			continue;
		int fd = pipe_make(restore, candidate, other, err);
		if (fd < 0)
			return -1;
		restore_give(restore, candidate->id, fd);
		made = restore_fd(restore, candidate->id);
	}
	return made;
}

static int pipe_make(struct restore *restore, const image_file *file, const void *in,
		     struct fsnap_error *err)
{
	const image_file_pipe *state = in;
	int made = made_before(restore, state, err);
	if (error_is_set(err))
		return -1;
	if (state->path[0])
		return make_fifo(restore, file, state, made < 0, err);
	if (state->removed[0])
		return make_nameless(restore, file, state, made, err);
	if (made < 0)
		return make_pipe(restore, file, state, err);
	int fd = reopen(made, file->flags);
	return fd < 0 ? failed(file, err, "open the pipe once more") : fd;
}

const struct file_kind kind_pipe = {
	.name = "pipe",
	.keeps = "content, capacity, packet mode and packets, FIFOs by path, those without a name, closed ends",
	.refuses = "an end held outside the tree",
	.shown_by = "pipe_*",
	.xdr = (xdrproc_t)xdr_image_file_pipe,
	.key = pipe_key,
	.matches = pipe_matches,
	.save = pipe_save,
	.save_links = pipe_save_links,
	.remap = pipe_remap,
	.make = pipe_make,
};
