#!/usr/bin/python3
"""A shell that reads from its terminal, dumped and killed with its terminal gone, restored in the
foreground of another terminal: it reads and writes there, keeps its variables, is interrupted by
Ctrl-C, and its exit status is fsnap's."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402
from terminal import Terminal, expect_shows  # noqa: E402

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "terminal_shell.sh")


def body(t):
    if t.control:
        sandbox.skip("is about fsnap only")
    first = Terminal(["/bin/bash", "--norc", SCRIPT], t.work, trial.ENVIRONMENT)
    expect_shows(t, first, "hello")
    first.type("one\n")
    expect_shows(t, first, "1 one 111")
    shell = first.pid
    image = t.dump(shell, "--kill")["image"]
    first.close()
    second = Terminal([t.fsnap.binary, "--store", t.fsnap.store, "restore", image], t.work, trial.ENVIRONMENT)
    t.until("it runs again", lambda: os.path.exists(f"/proc/{shell}"), 5)
    expect_shows(t, second, "no job control")
    time.sleep(0.2)
    second.type("two\n")
    expect_shows(t, second, "2 two 111")
    time.sleep(0.2)  # in which bash begins to read: just before, it notices a signal only behind the next line
    second.type("\x03")
    expect_shows(t, second, "interrupted")
    second.type("three\n")
    expect_shows(t, second, "101 three 111")
    second.type("end\n")
    t.expect("exit status of fsnap", 12, children.wait(second.pid, 5))


trial.main(body)
