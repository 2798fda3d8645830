#!/usr/bin/python3
"""A shell that reads from its terminal, dumped and killed with its terminal gone, restored in the
foreground of another terminal: it reads and writes there, keeps its variables, is interrupted by
Ctrl-C, and its exit status is fsnap's."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "terminal_shell.sh")


class Terminal:
    """A terminal window with a program in it."""

    def __init__(self, argv, cwd):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.closerange(3, 256)
            os.chdir(cwd)
            os.execve(argv[0], argv, {**trial.ENVIRONMENT, "TERM": "xterm"})
        children.statuses.pop(self.pid, None)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        self.text = ""

    def type(self, text):
        os.write(self.master, text.encode())

    def shows(self, text, timeout=5):
        deadline = time.monotonic() + timeout
        while text not in self.text:
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                return False
            try:
                self.text += os.read(self.master, 4096).decode(errors="replace")
            except OSError:
                return text in self.text
        return True


def expect_shows(t, terminal, text):
    t.expect_true(f"the terminal shows {text!r} (it shows {terminal.text[-300:]!r})",
                  terminal.shows(text))


def body(t):
    if t.control:
        sandbox.skip("is about fsnap only")
    first = Terminal(["/bin/bash", "--norc", SCRIPT], t.work)
    expect_shows(t, first, "hello")
    first.type("one\n")
    expect_shows(t, first, "1 one 111")
    shell = first.pid
    image = t.dump(shell, "--kill")["image"]
    os.close(first.master)
    second = Terminal([t.fsnap.binary, "--store", t.fsnap.store, "restore", image], t.work)
    t.until("it runs again", lambda: os.path.exists(f"/proc/{shell}"), 5)
    expect_shows(t, second, "no job control")
    time.sleep(0.2)
    second.type("two\n")
    expect_shows(t, second, "2 two 111")
    second.type("\x03")
    expect_shows(t, second, "interrupted")
    second.type("three\n")
    expect_shows(t, second, "101 three 111")
    second.type("end\n")
    t.expect("exit status of fsnap", 12, children.wait(second.pid, 5))


trial.main(body)
