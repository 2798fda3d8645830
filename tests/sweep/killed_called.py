#!/usr/bin/python3
"""fsnap dump is killed at a sample of its system calls, and just before each thread of the target gets a signal that it
sleeps for: in a call that the handler ends. Whatever fsnap was doing to it, it wakes, once. The same with one signal for
the whole process: one thread wakes, that in which the handler ran. A live dump leads threads away no more often than
another one, but for the main thread: each time is one in which they could be harmed (W8, W9 of engine/place.h)."""

import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

THREADS, POINTS, SECONDS = 4, 80, 8
SETSIGMASK = "420b"  # of ptrace(2)
LOST = 0.1  # what W8 of engine/place.h is allowed to be of all moments


def start(t, to_each):
    for name in ("ready", "counts"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    pid = t.start([os.path.join(t.helpers, "called")], ready="ready", name="called")
    tids = open(t.path("ready"), encoding="ascii").read().split()
    os.environ["STOPAT_SIGNAL"] = " ".join([str(pid), *(tids if to_each else ())])
    return pid, [int(x) for x in tids]


def counts(t):
    with open(t.path("counts"), "rb") as f:
        return struct.unpack(f"={THREADS}I", f.read())


def all_asleep(pid, tids):
    return not any(open(f"/proc/{pid}/task/{x}/syscall", encoding="ascii").read().startswith("running") for x in tids)


def woken(t, before, wanted, patience):
    """How often each has been since; waits until they were so often, or for so long."""
    deadline = time.monotonic() + patience
    while True:
        seen = [now - then for now, then in zip(counts(t), before)]
        if sum(seen) >= wanted or time.monotonic() > deadline:
            return seen
        time.sleep(0.002)


def called(t, to_each):
    wanted = THREADS if to_each else 1
    pid, tids = start(t, to_each)
    total, tried, lost = sweep.counted(t, "dump", "-t", pid, "--name", "counted"), 0, []
    t.fsnap.run("rm", "counted")
    began = time.monotonic()
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        t.until("all sleep", lambda: all_asleep(pid, tids))
        before = counts(t)
        _status, told = sweep.killed_at(t, number, 2, "dump", "-t", pid, "--name", "try")
        tried += 1
        seen = woken(t, before, wanted, 0.5)
        t.fsnap.run("rm", "try")
        children.reap()
        if not t.expect(f"killed at {told}: the program ended with", None, children.statuses.pop(pid, None)):
            pid, tids = start(t, to_each)
            continue
        seen = woken(t, before, wanted + 1, 0)
        t.expect(f"killed at {told}: each was woken no more than once: {seen}", True,
                 max(seen) <= 1 and sum(seen) <= wanted)
        if sum(seen) < wanted:
            lost.append(f"{told}: {seen}")
    t.note(f"{tried} tried, a signal {'for each' if to_each else 'for the process'}; {len(lost)} lost one")
    t.expect_true(f"hardly any: {lost}", len(lost) <= LOST * tried)
    os.kill(pid, signal.SIGKILL)
    children.wait(pid, 5)


def led_away(t):
    """Who is led away has his mask changed."""
    pid, _tids = start(t, True)
    os.environ["STOPAT_REQUEST"] = SETSIGMASK
    plain, live = (sweep.counted(t, "dump", "-t", pid, "--name", f"masks{len(x)}", *x) for x in ((), ("--live",)))
    del os.environ["STOPAT_REQUEST"]
    t.expect_true(f"masks are changed at {plain} stops of a dump, at {live} of a live one",
                  plain >= 4 * THREADS and live - plain < 2 * THREADS)
    os.kill(pid, signal.SIGKILL)
    children.wait(pid, 5)


def body(t):
    t.note(f"seed {sweep.seed()}")
    led_away(t)
    called(t, True)
    called(t, False)


trial.main(body, 3600 if sweep.FULL else 120)
