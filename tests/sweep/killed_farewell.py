#!/usr/bin/python3
"""fsnap dump --kill is killed in its last step: at each of its last system calls, and while the processes are being killed,
of which those that are left would make others. Either all of them are there and run, or none, and the image is whole."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

FEW, MANY = 3, 40
LAST = 180  # system call stops
MIDST = 8
SECONDS = 5


def start(t, n):
    if os.path.exists(t.path("ready")):
        os.unlink(t.path("ready"))
    pid = t.start([os.path.join(t.helpers, "orphans"), str(n)], ready="ready", name="orphans")
    t.until("all sleep", lambda: len(children.tree(pid)) == n + 1 and all(state(x) == "S" for x in children.tree(pid)))
    return pid


def state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def everybody():
    """All processes here but ours, and but who is dead already."""
    children.reap()
    return sorted(int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1 and state(x) not in "ZX")


def run(pids):
    """All are there, all run, and nobody else is, not fsnap's helper either, who may be about to kill them."""
    return everybody() == pids and all(state(x) == "S" for x in pids)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_all():
    while everybody():
        for pid in everybody():
            kill(pid)
        time.sleep(0.01)
    children.statuses.clear()


def judge(t, where, pids, image):
    """Are they all gone?"""
    t.until(f"{where}: all run, or none is there", lambda: not everybody() or run(pids))
    if not everybody():
        t.expect(f"{where}: gone, and the image verifies", 0, t.fsnap.run("verify", image).status)
        return True
    t.expect(f"{where}: who is there", pids, everybody())
    return False


def at_each_call(t):
    pid = start(t, FEW)
    total = sweep.counted(t, "dump", "-t", pid, "--name", "counted", "--kill")
    tried, ended, began, pid = 0, 0, time.monotonic(), None
    for number in range(total - LAST, total + 1, 1 if sweep.FULL else 6):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        pid = pid or start(t, FEW)
        pids = children.tree(pid)
        _status, told = sweep.killed_at(t, number, 0, "dump", "-t", pid, "--name", f"at{number}", "--kill")
        tried += 1
        if judge(t, f"killed at {told}", pids, f"at{number}"):
            ended += 1
            pid = None
    t.note(f"{tried} of the last {LAST} stops tried; {ended} times all were gone")
    t.expect_true("both were seen", 0 < ended < tried)
    end_all()


def dead_but(pids):
    """Has the first died that is killed, which is the youngest, and their parent not yet, who is the last?"""
    return state(pids[-1]) in "ZX" and state(pids[0]) not in "ZX"


def in_the_midst(t):
    """As soon as the first is dead: those that are left must not live to see it."""
    tried, midst, enough = 0, 0, MIDST * (20 if sweep.FULL else 1)
    while tried < enough or (not midst and tried < 3 * enough):
        tried += 1
        pid = start(t, MANY)
        pids = children.tree(pid)
        handle = t.fsnap.start("dump", "-t", pid, "--name", f"midst{tried}", "--kill")
        while not (seen := dead_but(pids)) and handle[0] not in children.statuses and state(pid) not in "ZX":
            children.reap()
        kill(handle[0])
        midst += seen
        children.wait(handle[0], 5)
        if not t.expect("killed in the midst: are all gone", True, judge(t, "killed in the midst", pids, f"midst{tried}")):
            break
        end_all()
    t.note(f"{midst} times of {tried} fsnap was killed between the first and the last")
    if sweep.FULL:  # a few tries on a busy machine may all miss it
        t.expect_true("it was killed in the midst", midst > 0)


def body(t):
    at_each_call(t)
    in_the_midst(t)


trial.main(body, 1200 if sweep.FULL else 120)
