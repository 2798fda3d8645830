/*
 * Pseudo-terminals with both sides in the tree: the number, settings, window size, packet mode, lock,
 * exclusive mode; what was typed (whole lines, an end of file, a line without its end, which can still
 * be erased) and what was shown and not read yet; a terminal whose slave was closed, one that was never
 * opened, one that has hung up; output that was stopped.
 */
#include "specimen.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

struct pty {
	int master, slave;
	unsigned number;
	char name[32];
};

static struct pty make(void)
{
	int unlocked = 0;
	struct pty pty = { .master = MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK)) };
	MUST(ioctl(pty.master, TIOCSPTLCK, &unlocked));
	MUST(ioctl(pty.master, TIOCGPTN, &pty.number));
	snprintf(pty.name, sizeof(pty.name), "/dev/pts/%u", pty.number);
	/* Sometimes as openpty(3) does it. */
	pty.slave = MUST(pty.number % 2 ? open(pty.name, O_RDWR | O_NOCTTY | O_NONBLOCK) :
					  ioctl(pty.master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
	return pty;
}

static void raw(int fd)
{
	struct termios settings;
	MUST(tcgetattr(fd, &settings));
	cfmakeraw(&settings);
	MUST(tcsetattr(fd, TCSANOW, &settings));
}

/* What a read of this side gives, control characters as text. */
static const char *gets_of(int fd)
{
	static char text[1024];
	char bytes[256];
	size_t used = 0;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	poll(&p, 1, 200);
	ssize_t n = read(fd, bytes, sizeof(bytes));
	if (n < 0)
		return errno == EAGAIN ? "(nothing)" : errno == EIO ? "(error)" : "(?)";
	for (ssize_t i = 0; i < n; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, (unsigned char)bytes[i] < 32 ? "\\%d" : "%c",
					 bytes[i]);
	text[used] = '\0';
	return text;
}

static void type(int master, const char *text)
{
	MUST(write(master, text, strlen(text)));
	sleep_ms(5); /* until the line discipline has it */
}

static struct pty lines, plain, full, locked, closed, shut, stopped;
static int fresh, lost;

static void set_up(void)
{
	struct termios settings;
	struct winsize size = { .ws_row = 33, .ws_col = 77 };
	int on = 1;
	lines = make();
	MUST(tcgetattr(lines.slave, &settings));
	settings.c_lflag &= (unsigned)~ECHO;
	settings.c_cc[VINTR] = 7;
	settings.c_cc[VEOL] = '|';
	MUST(tcsetattr(lines.slave, TCSANOW, &settings));
	MUST(ioctl(lines.slave, TIOCSWINSZ, &size));
	MUST(fchmod(lines.slave, 0640));
	plain = make();
	raw(plain.slave);
	MUST(ioctl(plain.master, TIOCPKT, &on));
	full = make();
	raw(full.slave);
	locked = make();
	closed = make();
	raw(closed.slave);
	MUST(write(closed.slave, "last words", 10));
	sleep_ms(5);
	close(closed.slave);
	shut = make();
	close(shut.slave);
	MUST(ioctl(full.slave, TIOCEXCL));
	MUST(ioctl(locked.master, TIOCSPTLCK, &on));
	stopped = make();
	fresh = MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
	struct pty gone = make();
	lost = gone.slave;
	close(gone.master);
}

static void check_settings(void)
{
	struct termios settings = { 0 };
	struct winsize size = { 0 };
	struct stat node = { 0 };
	unsigned number = 0;
	int value = 0;
	expect_ok("number", ioctl(lines.master, TIOCGPTN, &number));
	expect_int("is", lines.number, number);
	expect_text("name", lines.name, ttyname(lines.slave));
	expect_ok("settings", tcgetattr(lines.slave, &settings));
	expect_int("interrupt character", 7, settings.c_cc[VINTR]);
	expect_int("echo", 0, settings.c_lflag & ECHO);
	expect_int("lines", ICANON, settings.c_lflag & ICANON);
	expect_ok("window size", ioctl(lines.master, TIOCGWINSZ, &size));
	expect_int("rows", 33, size.ws_row);
	expect_int("columns", 77, size.ws_col);
	expect_ok("node", stat(lines.name, &node));
	expect_hex("its mode", 0640, node.st_mode & 0777);
	expect_int("and owner", getuid(), node.st_uid);
	expect_ok("packet mode", ioctl(plain.master, TIOCGPKT, &value));
	expect_int("is on", 1, value);
	expect_ok("lock", ioctl(locked.master, TIOCGPTLCK, &value));
	expect_int("is on", 1, value);
	expect_errno("a locked one cannot be opened", EIO, open(locked.name, O_RDWR | O_NOCTTY));
	expect_ok("exclusive mode", ioctl(full.slave, TIOCGEXCL, &value));
	expect_int("is on", 1, value);
	expect_int("no-tty flags", O_RDWR | O_NONBLOCK,
		   fcntl(lines.slave, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
}

static void check_ends(void)
{
	struct pollfd p = { .fd = fresh, .events = POLLIN };
	expect_text("one that was never opened waits", "(nothing)", gets_of(fresh));
	expect_int("and has not hung up", 0, poll(&p, 1, 0));
	if (specimen_number() == 1)
		expect_text("what was said before the slave was closed", "last words", gets_of(closed.master));
	expect_text("then it is closed", "(error)", gets_of(closed.master));
	expect_text("one that had nothing to say", "(error)", gets_of(shut.master));
	expect_text("without its master it has ended", "", gets_of(lost));
	expect_errno("and takes nothing", EIO, write(lost, "x", 1));
}

int main(void)
{
	static char much[3000], seen[4096];
	set_up();
	memset(much, 'm', sizeof(much));
	while (specimen_round()) {
		type(lines.master, "first\nsecond|\026\004literal\n\004abc\004unfinishedX");
		type(plain.master, "raw \003\004\n bytes");
		MUST(write(lines.slave, "shown\n", 6));
		MUST(write(plain.slave, "packet", 6));
		/* More than the line discipline takes: the rest waits behind it. */
		type(full.master, much);
		type(full.master, much);
		type(stopped.master, "\023");
		specimen_ready();
		check_settings();
		expect_text("first line", "first\\10", gets_of(lines.slave));
		expect_text("up to the other end of line", "second|", gets_of(lines.slave));
		expect_text("a literal control character", "\\4literal\\10", gets_of(lines.slave));
		expect_text("an end of file", "", gets_of(lines.slave));
		expect_text("one that ends what is there", "abc", gets_of(lines.slave));
		expect_text("the unfinished line waits", "(nothing)", gets_of(lines.slave));
		type(lines.master, "\177!\n");
		expect_text("and can be edited", "unfinished!\\10", gets_of(lines.slave));
		expect_text("what was shown", "shown\\13\\10", gets_of(lines.master));
		expect_text("and no more", "(nothing)", gets_of(lines.master));
		expect_text("raw bytes", "raw \\3\\4\\10 bytes", gets_of(plain.slave));
		expect_text("a packet", "\\0packet", gets_of(plain.master));
		size_t total = 0;
		for (ssize_t n; total < 2 * sizeof(much) && (n = read(full.slave, seen, sizeof(seen))) > 0;
		     sleep_ms(5))
			total += (size_t)n;
		expect_int("bytes that waited in two places", 2 * (long long)strlen(much), (long long)total);
		check_ends();
		MUST(write(stopped.slave, "go", 2) < 0 && errno != EAGAIN ? -1 : 0);
		expect_text("output is stopped", "(nothing)", gets_of(stopped.master));
		type(stopped.master, "\021");
		struct pollfd p = { .fd = stopped.slave, .events = POLLOUT };
		poll(&p, 1, 2000);
		MUST(write(stopped.slave, "on", 2));
		expect_text("and goes on", "on", gets_of(stopped.master));
	}
	return specimen_end();
}
