#!/usr/bin/python3
"""fsnap is killed at each change of registers and at each step through a system call of the target's: where it leaves an
unused mapping or descriptor of the agent (window W2 of engine/place.h), be it that nothing was written to it yet, the next
dump takes it out, also for users who may not open other processes' mappings."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

REQUESTS = {"d": "changes of registers", "18": "steps"}  # PTRACE_SETREGS, PTRACE_SYSCALL
SOON_MS = 3  # the call that was begun is made meanwhile
USER = 1000


def left_in(pid):
    """What sleep has none of: memory without a name, and descriptors of such."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        found = [x for x in f.read().splitlines() if "/memfd:" in x or "/dev/zero" in x]
    links = [os.readlink(f"/proc/{pid}/fd/{x}") for x in os.listdir(f"/proc/{pid}/fd")]
    return found + [x for x in links if "/memfd:" in x]


def killed(t, uid, store, request, number, pid, options):
    told = t.path(f"told.{uid}")
    if os.path.exists(told):
        os.unlink(told)
    argv = [os.path.join(t.helpers, "stopat"), str(number), str(SOON_MS), told, t.fsnap.binary, "--store", store,
            "dump", "-t", str(pid), "--name", "killed", *options]
    handle = children.spawn(argv, out=t.path(f"stopat.{uid}"), uid=uid, env=sweep.traced(STOPAT_REQUEST=request))
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
    for request, what in REQUESTS.items():
        swept(t, uid, request, what, pid)
        swept(t, uid, request, what, pid, "--live")
    t.expect("it still runs", "S", open(f"/proc/{pid}/stat").read().split()[2])
    os.kill(pid, 9)


def swept(t, uid, request, what, pid, *options):
    store, number, left = t.path("store.%s" % ".".join((str(uid), request, *options))), 0, 0
    while killed(t, uid, store, request, number := number + 1, pid, options):
        if not left_in(pid):
            continue
        left += 1
        where = f"user {uid}, {options}, killed at {number} of its {what}"
        result = next_dump(t, uid, store, number, pid)
        t.expect(f"{where}: the next dump ({result.message})", 0, result.status)
        t.expect(f"{where}: what it leaves", [], left_in(pid))
    t.note(f"user {uid}, {options}: killed at {number - 1} of its {what}, something was left {left} times")
    t.expect_true("something was left behind, and taken out", left > 0)


def body(t):
    os.chmod(t.work, 0o777)
    for uid in (USER, 0):
        dumps(t, uid)


trial.main(body)
