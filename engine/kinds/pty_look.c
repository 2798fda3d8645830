/*
 * What waits in a pseudo-terminal.  Reading it would take it out, and of a line
 * that is not complete yet nobody is told at all, so it is looked at in the
 * kernel's memory: struct n_tty_data (drivers/tty/n_tty.c) holds what the line
 * discipline has processed, the port's buffers what it had no room for.
 */
#include <asm/termbits.h>
#include <string.h>

#include "engine/kinds/peek.h"
#include "engine/kinds/pty.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { READ_BUFFER = 4096, MOST = 1 << 20 }; /* N_TTY_BUF_SIZE */

enum where {
	FILE_TTY, TTY_LINK, TTY_PORT, TTY_DISC, TTY_COUNT, TTY_STOPPED, TTY_TCO_STOPPED, TTY_STATUS,
	HEAD, TAIL, BYTES, FLAGS,
	PORT_HEAD, BUFFER_NEXT, BUFFER_COMMIT, BUFFER_READ, BUFFER_DATA, WHERES,
};

struct look {
	struct peek *peek;
	struct peek_member at[WHERES];
};

static bool prepare(struct look *look, struct dump *dump)
{
	*look = (struct look){.peek = dump_peek(dump), .at = {
		[FILE_TTY] = {"tty_file_private", "tty", 0},
		[TTY_LINK] = {"tty_struct", "link", 0},
		[TTY_PORT] = {"tty_struct", "port", 0},
		[TTY_DISC] = {"tty_struct", "disc_data", 0},
		[TTY_COUNT] = {"tty_struct", "count", 0},
		[TTY_STOPPED] = {"tty_struct", "flow.stopped", 0},
		[TTY_TCO_STOPPED] = {"tty_struct", "flow.tco_stopped", 0},
		[TTY_STATUS] = {"tty_struct", "ctrl.pktstatus", 0},
		[HEAD] = {"n_tty_data", "read_head", 0},
		[TAIL] = {"n_tty_data", "read_tail", 0},
		[BYTES] = {"n_tty_data", "read_buf", 0},
		[FLAGS] = {"n_tty_data", "read_flags", 0},
		[PORT_HEAD] = {"tty_port", "buf.head", 0},
		[BUFFER_NEXT] = {"tty_buffer", "next", 0},
		[BUFFER_COMMIT] = {"tty_buffer", "commit", 0},
		[BUFFER_READ] = {"tty_buffer", "read", 0},
		[BUFFER_DATA] = {"tty_buffer", "data", 0},
	}};
	return look->peek && peek_layout(look->peek, look->at, WHERES);
}

static uint64_t word(const struct look *look, uint64_t address, enum where where)
{
	return peek_word(look->peek, address, look->at[where].offset);
}

static uint32_t half(const struct look *look, uint64_t address, enum where where)
{
	return peek_half(look->peek, address, look->at[where].offset);
}

static uint8_t byte(const struct look *look, uint64_t address, enum where where)
{
	uint8_t value = 0;
	peek_bytes(look->peek, address + look->at[where].offset, &value, 1);
	return value;
}

/* What the line discipline of one side holds: the bytes, and which of them end a line. */
static int processed(const struct look *look, uint64_t tty, char *bytes, char *ends, unsigned *n)
{
	uint64_t disc = word(look, tty, TTY_DISC);
	uint64_t flags[READ_BUFFER / 64];
	char buffer[READ_BUFFER];
	uint64_t head = word(look, disc, HEAD), tail = word(look, disc, TAIL);
	if (!disc || head - tail > READ_BUFFER ||
	    !peek_bytes(look->peek, disc + look->at[BYTES].offset, buffer, sizeof(buffer)) ||
	    !peek_bytes(look->peek, disc + look->at[FLAGS].offset, flags, sizeof(flags)))
		return 1;
	*n = (unsigned)(head - tail);
	for (unsigned i = 0; i < *n; i++) {
		unsigned place = (tail + i) % READ_BUFFER;
		bytes[i] = buffer[place];
		ends[i] = (char)(flags[place / 64] >> place % 64 & 1);
	}
	return 0;
}

/* What its port holds behind that, appended to *bytes. */
static int unprocessed(const struct look *look, uint64_t tty, char **bytes, unsigned *n, struct fsnap_error *err)
{
	uint64_t port = word(look, tty, TTY_PORT);
	uint64_t buffer = word(look, port, PORT_HEAD);
	for (unsigned rounds = 0; buffer && rounds < 4096; rounds++) {
		uint32_t from = half(look, buffer, BUFFER_READ), to = half(look, buffer, BUFFER_COMMIT);
		if (to > from && to - from < MOST) {
			char *more = realloc(*bytes, *n + (to - from));
			if (!more)
				return no_memory(err);
			*bytes = more;
			if (!peek_bytes(look->peek, buffer + look->at[BUFFER_DATA].offset + from, *bytes + *n,
					to - from))
				return 1;
			*n += to - from;
		}
		buffer = word(look, buffer, BUFFER_NEXT);
	}
	return 0;
}

static int look_at_slave(const struct look *look, uint64_t slave, image_file_pty *state, struct fsnap_error *err)
{
	char bytes[READ_BUFFER], ends[READ_BUFFER];
	unsigned n;
	if (processed(look, slave, bytes, ends, &n))
		return 1;
	if (set_bytes(&state->typed.typed_len, &state->typed.typed_val, bytes, n, err) < 0 ||
	    set_bytes(&state->ends.ends_len, &state->ends.ends_val, ends, n, err) < 0)
		return -1;
	return unprocessed(look, slave, &state->behind.behind_val, &state->behind.behind_len, err);
}

static int look_at_master(const struct look *look, uint64_t master, image_file_pty *state,
			  struct fsnap_error *err)
{
	char bytes[READ_BUFFER], ends[READ_BUFFER];
	unsigned n;
	if (processed(look, master, bytes, ends, &n))
		return 1;
	if (set_bytes(&state->shown.shown_len, &state->shown.shown_val, bytes, n, err) < 0)
		return -1;
	return unprocessed(look, master, &state->shown.shown_val, &state->shown.shown_len, err);
}

int pty_look(const struct fd_view *fd, image_file_pty *state, unsigned *slaves, struct fsnap_error *err)
{
	struct look look;
	uint64_t private = prepare(&look, fd->dump) ? peek_private(look.peek, fd->dup) : 0;
	uint64_t master = private ? word(&look, private, FILE_TTY) : 0;
	uint64_t slave = master ? word(&look, master, TTY_LINK) : 0;
	if (!slave)
		return 1;
	unsigned count = half(&look, slave, TTY_COUNT);
	*slaves = count ? count - 1 : 0; /* the pair itself counts as one: pty_common_install() */
	state->stopped = byte(&look, slave, TTY_TCO_STOPPED) ? 2 : byte(&look, slave, TTY_STOPPED) ? 1 : 0;
	if (state->packet && byte(&look, slave, TTY_STATUS))
		dump_note(fd->dump, "what packet mode was about to tell about terminal %u is lost", state->index);
	int result = look_at_slave(&look, slave, state, err);
	return result ? result : look_at_master(&look, master, state, err);
}
