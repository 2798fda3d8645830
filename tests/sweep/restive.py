#!/usr/bin/python3
"""The target ends, is killed, executes another program, or forks and clones without pause while it is
being dumped: fsnap says so (exit status 4; 3 for what cannot be saved yet) or saves it, hangs never,
and harms neither the store nor what lives on."""

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
from fsnap import EXIT_OK, EXIT_REFUSED, EXIT_TARGET  # noqa: E402

ROUNDS = 200 if sweep.FULL else 12
EXPECTED = (EXIT_OK, EXIT_REFUSED, EXIT_TARGET)


def stop(t, pid):
    for _ in range(200):  # those that fork all the time are killed generation by generation
        pids = children.tree(pid)
        for each in pids:
            try:
                os.kill(each, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not children.wait_gone([pid], 0.05):
            break
    children.statuses.clear()
    left = [int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1]
    t.expect("processes left", [], children.wait_gone(left, 3))


def judge(t, how, result, seen):
    seen[result.status] = seen.get(result.status, 0) + 1
    if not t.expect(f"{how}: exit status is one of {EXPECTED}", True, result.status in EXPECTED):
        t.note(str(result))
    elif result.status != EXIT_OK:
        t.expect_true(f"{how}: an error has a message", result.message)


def untraced(pid):
    for each in children.tree(pid):
        state = outside.fields(f"/proc/{each}/status", ("State", "TracerPid"))
        if state and (state["TracerPid"] != "0" or state["State"][0] in "tT"):
            return False
    return True


def once(t, how, delay, seen, kill_after=None):
    name = f"r{t.checks}"
    if os.path.exists(t.path("ready")):
        os.unlink(t.path("ready"))
    pid = t.start([os.path.join(t.helpers, "restive"), how, str(delay)], ready="ready")
    handle = t.fsnap.start("dump", "-t", pid, "--json", "--name", name, random.choice(("--live", "--no-live")))
    if kill_after is not None:
        time.sleep(kill_after)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    result = t.fsnap.finish(handle, 30)
    judge(t, f"{how} {delay} {kill_after or ''}", result, seen)
    if result.status == "none: still running":
        os.kill(handle[0], signal.SIGKILL)
    t.until(f"{how}: nobody is traced or stopped", lambda: untraced(pid), 3)
    stop(t, pid)


def body(t):
    seed = sweep.seed()
    sleeper = t.start(["/usr/bin/sleep", "1000"])
    kept = t.dump(sleeper, "--name", "kept")["image"]
    stop(t, sleeper)
    for how in ("exits", "crashes", "execs", "forks", "vforks", "threads", "killed"):
        seen = {}
        for _ in range(ROUNDS):
            delay = random.randrange(0, 9000)
            if how == "killed":
                once(t, how, 0, seen, random.uniform(0, 0.02))
            else:
                once(t, how, delay, seen)
        t.note(f"{how}: exit statuses {seen} (seed {seed})")
    result = t.fsnap.run("verify", "--all")
    t.expect("all that are listed verify", 0, result.status)
    listed = t.fsnap.run("list", "--json").json["images"]
    t.expect("the earlier image is listed", True, kept in [x["name"] for x in listed])


trial.main(body, 7200 if sweep.FULL else 280)
