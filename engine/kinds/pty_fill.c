/*
 * Putting back what waited in a pseudo-terminal.
 *
 * What the program had not read of its input is sent through the line discipline
 * once more, with settings under which it comes out as it was: nothing is special
 * but the ends of lines, and the one character that takes the next one literally.
 * Echo is on meanwhile: when a byte comes back, it has been processed.
 *
 * How much a terminal takes depends on the sizes of the writes (drivers/tty/tty_buffer.c): one that does not fit
 * into the last buffer gets another, twice as large as itself, but at least MIN_TTYB_SIZE; none is made once all
 * have reached a limit. Programs come to what is possible by chance, so everything must fit: what the line
 * discipline takes (N_TTY_BUF_SIZE - 1), then small buffers that are full, then one as large as there can be.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kinds/pty.h"
#include "store/scope.h"

enum { PATIENCE_MS = 2000, AT_ONCE = 64 };
enum { DISCIPLINE_TAKES = 4095, HALF_BUFFER = 256, LARGEST_BUFFER = 2 * 1792 }; /* TTY_BUFFER_PAGE */
enum { END_OF_FILE = 0x04, LITERALLY = 0x16 };

/* Reads exactly n bytes of echo away. */
static int await_echo(int master, size_t n)
{
	char echo[AT_ONCE];
	while (n) {
		struct pollfd p = {.fd = master, .events = POLLIN};
		ssize_t got = read(master, echo, n < sizeof(echo) ? n : sizeof(echo));
		if (got > 0)
			n -= (size_t)got;
		else if (poll(&p, 1, PATIENCE_MS) <= 0)
			return errno = EIO, -1;
	}
	return 0;
}

static int send_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		ssize_t sent = write(fd, bytes, n);
		if (sent > 0) {
			bytes += sent;
			n -= (size_t)sent;
		} else if (poll(&p, 1, PATIENCE_MS) <= 0) {
			return errno = EIO, -1;
		}
	}
	return 0;
}

/* All of what waited in a port, and before it in the line discipline, if that is empty. It is no use to poll for
 * room: none is told when the limit is reached, which still leaves one buffer to take. */
static int pile_up(int fd, const char *bytes, size_t n, bool discipline_empty)
{
	size_t done = 0, end = discipline_empty ? DISCIPLINE_TAKES % HALF_BUFFER : 0;
	for (unsigned waited = 0; done < n;) {
		if (end <= done)
			end = n - done <= LARGEST_BUFFER ? n : done + HALF_BUFFER;
		ssize_t sent = write(fd, bytes + done, (end < n ? end : n) - done);
		if (sent > 0)
			done += (size_t)sent;
		else if (waited++ >= PATIENCE_MS)
			return errno = EIO, -1;
		else
			poll(NULL, 0, 1); /* until the line discipline has taken its part */
	}
	return 0;
}

static int set_quiet(int master, const struct termios2 *settings, char end_of_line)
{
	struct termios2 quiet = *settings;
	quiet.c_iflag = 0;
	quiet.c_oflag = 0;
	quiet.c_lflag = (settings->c_lflag & ICANON) | ECHO | IEXTEN;
	memset(quiet.c_cc, 0, sizeof(quiet.c_cc));
	quiet.c_cc[VMIN] = 1;
	if (settings->c_lflag & ICANON) {
		quiet.c_cc[VEOF] = END_OF_FILE;
		quiet.c_cc[VLNEXT] = LITERALLY;
		quiet.c_cc[VEOL] = (cc_t)end_of_line;
	}
	return ioctl(master, TCSETS2, &quiet);
}

/* One byte of lines: as it was, ending a line or not. */
static int type_byte(int master, const struct termios2 *settings, char byte, bool ends)
{
	const char literally[] = {LITERALLY, byte}, end_of_file = END_OF_FILE;
	if (ends && byte == '\0')
		return send_all(master, &end_of_file, 1); /* no echo */
	if (ends && byte != '\n') {
		if (set_quiet(master, settings, byte) < 0 || send_all(master, &byte, 1) < 0 ||
		    await_echo(master, 1) < 0)
			return -1;
		return set_quiet(master, settings, '\0');
	}
	bool special = !ends && (byte == '\n' || byte == END_OF_FILE || byte == LITERALLY);
	if ((special ? send_all(master, literally, 2) : send_all(master, &byte, 1)) < 0)
		return -1;
	return await_echo(master, 1);
}

static int type_input(int master, const struct termios2 *settings, const image_file_pty *state)
{
	unsigned n = state->typed.typed_len;
	const char *bytes = state->typed.typed_val;
	if (settings->c_lflag & ICANON) {
		for (unsigned i = 0; i < n; i++)
			if (type_byte(master, settings, bytes[i],
				      i < state->ends.ends_len && state->ends.ends_val[i]) < 0)
				return -1;
		return 0;
	}
	for (unsigned done = 0; done < n; done += AT_ONCE) {
		unsigned some = n - done < AT_ONCE ? n - done : AT_ONCE;
		if (send_all(master, bytes + done, some) < 0 || await_echo(master, some) < 0)
			return -1;
	}
	return 0;
}

/* Through a slave that is opened for it: somebody had it open to write this. */
static int show_output(int master, const image_file_pty *state)
{
	if (!state->shown.shown_len)
		return 0;
	cleanup_fd int peer = pty_peer(master, O_RDWR | O_NONBLOCK);
	return peer < 0 ? -1 : pile_up(peer, state->shown.shown_val, state->shown.shown_len, true);
}

/* Output that was stopped, by TCOOFF (2) or by a character (1). */
static int stop_output(int master, const struct termios2 *settings, unsigned stopped)
{
	if (stopped == 1 && (settings->c_iflag & IXON) && settings->c_cc[VSTOP])
		return send_all(master, (const char *)&settings->c_cc[VSTOP], 1);
	if (!stopped)
		return 0;
	cleanup_fd int peer = pty_peer(master, O_RDWR | O_NONBLOCK);
	return peer < 0 ? -1 : ioctl(peer, TCXONC, TCOOFF);
}

int pty_fill(int master, const image_file_pty *state)
{
	struct termios2 settings;
	memcpy(&settings, state->termios.termios_val, sizeof(settings));
	if (state->typed.typed_len || state->shown.shown_len) {
		if (set_quiet(master, &settings, '\0') < 0 || type_input(master, &settings, state) < 0 ||
		    show_output(master, state) < 0)
			return -1;
	}
	if (ioctl(master, TCSETS2, &settings) < 0)
		return -1;
	if (pile_up(master, state->behind.behind_val, state->behind.behind_len, false) < 0)
		return -1;
	return stop_output(master, &settings, state->stopped);
}
