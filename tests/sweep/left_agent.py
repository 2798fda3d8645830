#!/usr/bin/python3
"""fsnap is killed at each change of registers: where it leaves an unused mapping of the agent (window W2 of engine/place.h),
the next dump takes it out, also for users who may not open other processes' mappings."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

SETREGS = "d"
USER = 1000


def mappings(pid):
    """Those that have an agent in them. What nobody has written to yet could be anybody's, and can be saved."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        lines = [x for x in f.read().splitlines() if "/memfd:" in x or "/dev/zero" in x]
    return [x for x in lines if " rw-s " in x or begins(pid, int(x.partition("-")[0], 16)) == b"agnt"]


def begins(pid, address):
    """With what; nothing where it has just gone."""
    with open(f"/proc/{pid}/mem", "rb", 0) as f:
        try:
            return os.pread(f.fileno(), 4, address)
        except OSError:
            return b""


def killed(t, uid, store, number, pid):
    told = t.path(f"told.{uid}")
    if os.path.exists(told):
        os.unlink(told)
    argv = [os.path.join(t.helpers, "stopat"), str(number), "0", told, t.fsnap.binary, "--store", store,
            "dump", "-t", str(pid), "--name", "killed"]
    handle = children.spawn(argv, out=t.path(f"stopat.{uid}"), uid=uid, env={**os.environ, "STOPAT_REQUEST": SETREGS})
    children.wait(handle, 30)
    with open(told, encoding="utf-8") as f:
        return "killed" in f.read()


def next_dump(t, uid, store, number, pid):
    """An agent that is still at work finds out that fsnap is dead, and goes home by itself."""
    end = time.monotonic() + 15
    while True:
        result = t.fsnap.run("--store", store, "dump", "-t", pid, "--name", f"next{number}", uid=uid)
        if "has not come back yet" not in result.message or time.monotonic() > end:
            return result
        time.sleep(0.01)


def dumps(t, uid):
    pid = t.start(["/usr/bin/sleep", "1000"], uid=uid, name=f"sleep.{uid}")
    t.until("it sleeps", lambda: "sleep" in open(f"/proc/{pid}/wchan").read() or "nanosleep" in
            open(f"/proc/{pid}/stack").read() or open(f"/proc/{pid}/stat").read().split()[2] == "S")
    store, number, left = t.path(f"store.{uid}"), 0, 0
    while killed(t, uid, store, number := number + 1, pid):
        if not mappings(pid):
            continue
        left += 1
        result = next_dump(t, uid, store, number, pid)
        t.expect(f"user {uid}, killed at {number}: the next dump ({result.message})", 0, result.status)
        t.expect(f"user {uid}, killed at {number}: what it leaves", [], mappings(pid))
    t.note(f"user {uid}: killed at {number - 1} points, an agent was left {left} times")
    t.expect_true("an agent was left behind, and taken out", left > 0)
    t.expect("it still runs", "S", open(f"/proc/{pid}/stat").read().split()[2])
    os.kill(pid, 9)


def body(t):
    os.chmod(t.work, 0o777)
    for uid in (USER, 0):
        dumps(t, uid)


trial.main(body)
