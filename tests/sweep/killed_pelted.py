#!/usr/bin/python3
"""fsnap dump is killed before and behind each request that changes registers or the signal mask of a thread, while
signals wait for all threads: wherever a thread stands then, its handler has room."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

SETREGS, SETSIGMASK = "d", "420b"
PPOLL = 271  # the call's number
SECONDS = 5


def start(t):
    if os.path.exists(t.path("ready")):
        os.unlink(t.path("ready"))
    return t.start([os.path.join(t.helpers, "pelted")], ready="ready")


def is_home(pid):
    """Nobody waits inside the agent (ppoll) for somebody else to leave it: a dump would be refused for so long."""
    calls = [f"/proc/{pid}/task/{tid}/syscall" for tid in os.listdir(f"/proc/{pid}/task")]
    return not any(open(path, encoding="ascii").read().startswith(f"{PPOLL} ") for path in calls)


def body(t):
    seed = sweep.seed()
    pid, tried = start(t), 0
    for request in SETREGS, SETSIGMASK:
        os.environ["STOPAT_REQUEST"] = request
        total = sweep.counted(t, "dump", "-t", pid, "--name", f"counted{request}")
        t.expect_true("registers and masks of all threads are changed", total > 30)
        began, numbers = time.monotonic(), list(range(1, total + 1))
        random.shuffle(numbers)
        for number in numbers:
            if not sweep.FULL and time.monotonic() - began > SECONDS:
                break
            _status, told = sweep.killed_at(t, number, 15, "dump", "-t", pid, "--name", f"try{request}{number}")
            time.sleep(0.03)
            children.reap()
            tried += 1
            if not t.expect(f"killed at {told}: the program ended with", None, children.statuses.pop(pid, None)):
                pid = start(t)
            t.until("all come home", lambda: is_home(pid))
    t.note(f"{tried} tried; seed {seed}")


trial.main(body, 600 if sweep.FULL else 120)
