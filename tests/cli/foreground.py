#!/usr/bin/python3
"""fsnap restore in the foreground stands in for the tree: exit status, signals and stops pass
through it, and its own failures have a status of their own."""

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

PROGRAM = """
import os, signal, sys, time
def told(number, frame):
    with open("told", "a") as f:
        f.write(f"{number}\\n")
    if number == signal.SIGTERM:
        sys.exit(7)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, told)
open("ready", "w").close()
while True:
    time.sleep(0.05)
"""


class Foreground:
    def __init__(self, t, image, pid):
        self.t, self.pid = t, pid
        self.handle = t.fsnap.start("restore", image)
        self.fsnap = self.handle[0]
        t.until("the tree is a child of fsnap", lambda: pid in children.tree(self.fsnap))
        t.until("fsnap waits", lambda: self.takes_signals() and self.state(pid) in "SR")

    @staticmethod
    def state(pid):
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0]

    def takes_signals(self):
        """While it makes the tree it sleeps, too, but blocks no signals, or all. What sigwaitinfo(2)
        waits for does not show as blocked meanwhile; SIGTTOU goes with it."""
        with open(f"/proc/{self.fsnap}/status", encoding="ascii") as f:
            blocked = int(f.read().partition("SigBlk:")[2].split()[0], 16)
        return blocked >> signal.SIGTTOU - 1 & 1 and not blocked >> signal.SIGSEGV - 1 & 1

    def told(self):
        try:
            with open(self.t.path("told"), encoding="ascii") as f:
                return [int(line) for line in f]
        except FileNotFoundError:
            return []

    def end(self):
        return self.t.fsnap.finish(self.handle, 20)


def body(t):
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM], ready="ready")
    image = t.dump(pid, "--kill")["image"]

    run = Foreground(t, image, pid)
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        os.kill(run.fsnap, number)
        t.until(f"signal {number} reaches the tree", lambda n=number: n in run.told())
    os.kill(run.fsnap, signal.SIGTERM)
    result = run.end()
    t.expect("exit status of a tree that exits 7", 7, result.status)
    t.expect("signals, once each", sorted(set(run.told())), sorted(run.told()))
    t.expect("stdout is the tree's", "", result.out)
    t.expect("one line on stderr", 1, len(result.err.splitlines()))

    run = Foreground(t, image, pid)
    os.kill(pid, signal.SIGSTOP)
    t.until("fsnap stops with the tree", lambda: run.state(run.fsnap) == "T")
    os.kill(run.fsnap, signal.SIGCONT)
    t.until("the tree goes on with fsnap", lambda: run.state(pid) in "SR")
    os.kill(pid, signal.SIGKILL)
    t.expect("a tree that is killed kills fsnap likewise", -signal.SIGKILL, run.end().status)

    run = Foreground(t, image, pid)
    again = t.fsnap.run("restore", image, "--json")
    t.expect_error(again, 125, "PID_TAKEN", str(pid))
    os.kill(run.fsnap, signal.SIGTERM)
    t.expect("the first is not disturbed", 7, run.end().status)

    quiet = t.fsnap.start("restore", image, "--quiet")
    t.until("it runs", lambda: pid in children.tree(quiet[0]) and Foreground.state(quiet[0]) == "S")
    os.kill(pid, signal.SIGTERM)
    result = t.fsnap.finish(quiet, 20)
    t.expect("--quiet says nothing", (7, "", ""), (result.status, result.out, result.err))


trial.main(body)
