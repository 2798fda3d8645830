#!/usr/bin/python3
"""Targets that cannot be: none of that PID, a number that is none, fsnap's own parents, a process
somebody else traces, somebody else's process; each is told apart, and nobody is harmed."""

import ctypes
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_TARGET, EXIT_USAGE  # noqa: E402

PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17


def absent(t):
    for options in (["--json"], []):
        t.expect_error(t.fsnap.run("dump", "-t", 4000000, *options), EXIT_TARGET, "NO_PROCESS",
                       "4000000")
        for text in ("abc", "0", "-1", "12x", "99999999999999999999", ""):
            t.expect_error(t.fsnap.run("dump", "-t", text, *options), EXIT_USAGE, "USAGE")
    ended = t.start(["/bin/true"])
    os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    t.expect_error(t.fsnap.run("dump", "-t", ended, "--json"), EXIT_TARGET,
                   ("NO_PROCESS", "TARGET_DIED"), ended)


def itself(t):
    """A shell that dumps itself: the tree would hold the fsnap that saves it."""
    script = (f'"{t.fsnap.binary}" --store "{t.fsnap.store}" dump -t $$ --json > said; '
              'echo $? > status; exit 7')
    shell = t.start(["/bin/sh", "-c", script])
    t.expect("the shell's status", 7, children.wait(shell, 20))
    with open(t.path("status")) as f:
        t.expect("exit status of dumping one's own shell", str(EXIT_TARGET), f.read().strip())
    with open(t.path("said")) as f:
        t.expect_true("code is SELF", '"SELF"' in f.read())
    t.expect_error(t.fsnap.run("dump", "-t", os.getpid(), "--json"), EXIT_TARGET, "SELF")


def traced(t):
    pid = holder.start(t, "nothing")
    tracer = os.fork()
    if tracer == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace(PTRACE_SEIZE, pid, None, None)
        open(t.path("traced"), "w").close()
        signal.pause()
    t.until("the tracer holds it", lambda: os.path.exists(t.path("traced")))
    before = t.settled(pid)
    result = t.fsnap.run("dump", "-t", pid, "--json")
    t.expect_error(result, EXIT_TARGET, "TRACED", pid, tracer)
    t.expect_unharmed(pid, before, "refusing a traced process")
    os.kill(tracer, signal.SIGKILL)
    children.wait(tracer, 5)
    holder.expect_well(t, pid, "refusing a traced process")
    t.dump(pid)
    holder.expect_well(t, pid, "dumping a process that was traced")
    holder.stop(pid)


def somebody_elses(t):
    pid = holder.start(t, "nothing")
    before = t.settled(pid)
    os.mkdir(t.path("theirs"))
    os.chown(t.path("theirs"), 1000, 1000)
    os.chmod(t.fsnap.work, 0o777)
    store, t.fsnap.store = t.fsnap.store, t.path("theirs")
    result = t.fsnap.run("dump", "-t", pid, "--json", uid=1000)
    t.fsnap.store = store
    t.expect_error(result, EXIT_TARGET, "PERMISSION", pid)
    t.expect_unharmed(pid, before, "refusing a stranger")
    holder.expect_well(t, pid, "refusing a stranger")
    holder.stop(pid)


def body(t):
    absent(t)
    itself(t)
    traced(t)
    somebody_elses(t)


trial.main(body)
