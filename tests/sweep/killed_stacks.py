#!/usr/bin/python3
"""fsnap is killed at each change of registers, while the program stands on stacks of its own making (coroutines, alternate
stacks) and has its main stack in use: the frames by which its threads find home lie over nothing that is in use."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

MODES = ("coroutine", "alternate", "nested", "thread")


def answer(t, pid):
    """What it says of itself."""
    path = t.path("answer")
    if os.path.exists(path):
        os.unlink(path)
    with open(t.path("ask"), "w", encoding="utf-8"):
        pass
    t.until("it answers", lambda: os.path.exists(path) or pid in children.statuses, 20)
    if not os.path.exists(path):
        return f"it ended with {children.statuses.get(pid)}"
    with open(path, encoding="utf-8") as f:
        return f.read()


def stand(t, mode):
    if os.path.exists(t.path("ready")):
        os.unlink(t.path("ready"))
    pid = t.start([os.path.join(t.helpers, "stacks"), t.work, mode], ready="ready", name=mode)
    t.settled(pid)
    t.expect(f"{mode}: at first", "ok", answer(t, pid))
    return pid


def body(t):
    for mode in MODES:
        pid, number, where = stand(t, mode), 0, "killed"
        while "killed" in where:
            number += 1
            _status, where = sweep.killed_at(t, number, 0, "dump", "-t", pid, "--name", f"{mode}{number}")
            if not t.expect(f"{mode}, {where}: the program", "ok", answer(t, pid)):
                break
        t.expect_true(f"{mode}: killed at several points", number > 5)
        t.expect(f"{mode}: verify", 0, t.fsnap.run("verify", "--all").status)
        if pid not in children.statuses:
            os.kill(pid, 9)
        children.wait_gone([pid], 5)
        children.statuses.pop(pid, None)


os.environ["STOPAT_REQUEST"] = "d"  # PTRACE_SETREGS
trial.main(body)
