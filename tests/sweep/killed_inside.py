#!/usr/bin/python3
"""While helpers inside a large process copy it: fsnap is killed, or the process gets SIGSTOP, at any moment. It goes on,
and finds nothing of them: no child, thread, mapping, descriptor. Nor does it harm one that unmaps what is being copied, as
soon as it runs again."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import outside  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
from copied import Copied  # noqa: E402

SIZE = 128
SECONDS = 8


def dump(t, pid):
    return t.fsnap.start("dump", "-t", pid, "--no-live", "--name", f"try{t.fsnap.runs}", "--json")


def begun(pid, handle):
    """Waits until it has a child: copying has begun."""
    end = time.monotonic() + 5
    while time.monotonic() < end and handle[0] not in children.statuses:
        if open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8").read():
            return True
        children.reap()
    return False


def killed(t, c, before):
    handle = dump(t, c.pid)
    inside = begun(c.pid, handle)
    time.sleep(random.uniform(0, 0.03))
    try:
        os.kill(handle[0], signal.SIGKILL)
    except ProcessLookupError:
        pass
    children.wait(handle[0], 10)
    answer = c.answer()
    found = outside.lasting_differences(before, lambda: t.look(c.pid))
    if outside.are_unused(found):
        return None
    t.expect("fsnap killed: the program", "ok", answer)
    t.expect("fsnap killed: differences", [], found[:10])
    return inside


def stopped(t, c, before):
    """It stops when the dump is over, as it was told to, and goes on."""
    handle = dump(t, c.pid)
    inside = begun(c.pid, handle)
    time.sleep(random.uniform(0, 0.02))
    os.kill(c.pid, signal.SIGSTOP)
    result = t.fsnap.finish(handle)
    t.expect("stopped meanwhile: exit status", 0, result.status)
    t.until("it has stopped", lambda: open(f"/proc/{c.pid}/stat").read().rpartition(")")[2].split()[0] == "T", 5)
    os.kill(c.pid, signal.SIGCONT)
    t.expect("stopped meanwhile: the program", "ok", c.answer())
    t.expect_unharmed(c.pid, before, "SIGSTOP")
    t.expect("verify", 0, t.fsnap.run("verify", "--all").status)
    t.fsnap.run("rm", "--all")
    return inside


UNMAPS = 12


def unmapped(t, c):
    """fsnap is killed, and a thread unmaps at once what is being copied."""
    pid, inside = c.start(SIZE // 2, "unmap"), 0
    for _ in range(UNMAPS * (20 if sweep.FULL else 1)):
        handle = dump(t, pid)
        inside += begun(pid, handle)
        time.sleep(random.uniform(0, 0.01))
        try:
            os.kill(handle[0], signal.SIGKILL)
        except ProcessLookupError:
            pass
        children.wait(handle[0], 10)
        if not t.expect("fsnap killed: a program that unmaps", "ok", c.answer()):
            break
    t.expect_true("it was killed in time", inside > 0)
    c.end()


def body(t):
    t.note(f"seed {sweep.seed()}")
    c = Copied(t)
    try:
        unmapped(t, c)
        pid = c.start(SIZE)
        t.dump(pid, "--no-live", "--name", "first")
        t.fsnap.run("rm", "--all")
        before, tried, inside, left, began = t.settled(pid), 0, 0, 0, time.monotonic()
        while time.monotonic() - began < SECONDS * (20 if sweep.FULL else 1):
            result = (killed if tried % 3 else stopped)(t, c, before)
            tried += 1
            if result is None:
                left += 1
                c.end()
                before = t.settled(c.start(SIZE))
            else:
                inside += result
        t.note(f"{tried} tried, {inside} of them while threads copied; an unused descriptor or mapping left (W2) {left} times")
        t.expect_true("some were in time", inside > left)
    finally:
        c.close()


trial.main(body, 600 if sweep.FULL else 200)
