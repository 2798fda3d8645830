#!/usr/bin/python3
"""fsnap dump is killed at a sample of its system calls, and just before each thread of the target gets a signal that it
sleeps for: in a call that the handler ends. Whatever fsnap was doing to it, it wakes, once."""

import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

THREADS, POINTS, SECONDS = 4, 80, 12
LOST = 0.1  # what W8 of engine/place.h is allowed to be of all moments


def start(t):
    for name in ("ready", "counts"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    pid = t.start([os.path.join(t.helpers, "called")], ready="ready", name="called")
    tids = open(t.path("ready"), encoding="ascii").read().split()
    os.environ["STOPAT_SIGNAL"] = " ".join([str(pid), *tids])
    return pid, [int(x) for x in tids]


def counts(t):
    with open(t.path("counts"), "rb") as f:
        return struct.unpack(f"={THREADS}I", f.read())


def all_asleep(pid, tids):
    return not any(open(f"/proc/{pid}/task/{x}/syscall", encoding="ascii").read().startswith("running") for x in tids)


def woken(t, before, patience):
    """How often each has been since; waits until it was once at least, or for so long."""
    deadline = time.monotonic() + patience
    while True:
        seen = [now - then for now, then in zip(counts(t), before)]
        if all(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(0.002)


def body(t):
    seed = sweep.seed()
    pid, tids = start(t)
    total, tried, lost = sweep.counted(t, "dump", "-t", pid, "--name", "counted"), 0, []
    began = time.monotonic()
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        t.until("all sleep", lambda: all_asleep(pid, tids))
        before = counts(t)
        _status, told = sweep.killed_at(t, number, 2, "dump", "-t", pid, "--name", "try")
        tried += 1
        seen = woken(t, before, 0.5)
        t.fsnap.run("rm", "try")
        children.reap()
        if not t.expect(f"killed at {told}: the program ended with", None, children.statuses.pop(pid, None)):
            pid, tids = start(t)
            continue
        t.expect(f"killed at {told}: each was woken no more than once: {seen}", True, max(seen) <= 1)
        if not all(seen):
            lost.append(f"{told}: {seen}")
    t.note(f"{tried} tried, {len(lost)} lost a signal that they waited for; seed {seed}")
    t.expect_true(f"hardly any: {lost}", len(lost) <= LOST * tried)


trial.main(body, 3600 if sweep.FULL else 120)
