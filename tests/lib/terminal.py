"""A terminal window with a program in it, which leads a session there."""

import fcntl
import os
import pty
import select
import struct
import termios
import time

import children


class Terminal:
    def __init__(self, argv, cwd, env):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.closerange(3, 256)
            os.chdir(cwd)
            os.execve(argv[0], argv, {**env, "TERM": "xterm"})
        children.statuses.pop(self.pid, None)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        self.text = ""

    def type(self, text):
        os.write(self.master, text.encode())

    def take(self, timeout):
        """What it shows meanwhile; False: nothing."""
        if not select.select([self.master], [], [], max(0, timeout))[0]:
            return False
        try:
            more = os.read(self.master, 4096).decode(errors="replace")
        except OSError:  # nobody has it open any more
            return False
        self.text += more
        return bool(more)

    def shows(self, text, timeout=5):
        """Waits until `text` is among what it has shown."""
        deadline = time.monotonic() + timeout * children.PATIENCE
        while text not in self.text and time.monotonic() < deadline:
            if not self.take(0.05):
                time.sleep(0.002)
        return text in self.text

    def end(self, timeout=20):
        """Waits until the program has ended, and has all that was shown; returns its status."""
        deadline = time.monotonic() + timeout * children.PATIENCE
        status = None
        while status is None and time.monotonic() < deadline:
            self.take(0.002)
            status = children.wait(self.pid, 0.002)
        while self.take(0):
            pass
        return status

    def echoes(self):
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def foreground(self):
        return os.tcgetpgrp(self.master)

    def close(self):
        os.close(self.master)


def expect_shows(t, terminal, text):
    t.expect_true(f"the terminal shows {text!r} (it shows {terminal.text[-300:]!r})", terminal.shows(text))
