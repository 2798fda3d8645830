#!/usr/bin/python3
"""One system call of fsnap fails, each in turn (FSNAP_SWEEP=full) or a sample of them: no memory, no
descriptor, no space, input/output errors. It says so and ends with a proper status, or does without;
the target is unharmed, no process is left, the images are whole, the next dump or restore works."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

POINTS, SECONDS = 60, 8


def dumps(t, v, seen, loading):
    total = sweep.counted(t, "dump", "-t", v.pid, "--name", "counted")
    began = time.monotonic()
    for number in sweep.numbers(total, POINTS):
        if number < loading:
            continue
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        status, where = sweep.faulted(t, number, "dump", "-t", v.pid, "--name", f"f{number}")
        seen[status] = seen.get(status, 0) + 1
        wrong = v.complaints()
        if not t.expect(f"{where} (status {status}): the target", [], wrong[:8]):
            v.stop()
            v.start()
        listed = {x["name"]: x.get("error") for x in t.fsnap.run("list", "--json").json["images"]}
        t.expect(f"{where}: its image exists", status == 0, f"f{number}" in listed)
        t.expect(f"{where}: damaged images", [], [x for x in listed if listed[x]])
        t.fsnap.run("rm", f"f{number}")
    t.dump(v.pid, "--name", "afterwards")
    t.expect("after a dump that follows", [], v.complaints())


def restores(t, v, seen, loading):
    kept = t.dump(v.pid, "--name", "kept", "--kill")["image"]
    v.t.expect("verify", 0, t.fsnap.run("verify", kept).status)
    total = sweep.counted(t, "restore", kept, "-d")
    began = time.monotonic()
    for number in sweep.numbers(total, POINTS):
        if number < loading:
            continue
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        v.stop()
        children.statuses.clear()
        status, where = sweep.faulted(t, number, "restore", kept, "-d")
        seen[status] = seen.get(status, 0) + 1
        if status == 0:
            v.forget_harm()
            t.expect(f"{where}: what was restored", [], v.complaints())
        else:
            here = [int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1]
            left = children.wait_gone(here, 1)
            if not t.expect(f"{where} (status {status}): processes left", [], left):
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                children.wait_gone(left, 5)
    v.stop()
    children.statuses.clear()
    t.restore(kept)
    v.forget_harm()
    t.expect("after a restore that follows", [], v.complaints())


def body(t):
    seed = sweep.seed()
    v = victim.Victim(t)
    v.start()
    statuses = {"dump": {}, "restore": {}}
    loading = sweep.counted(t, "--version")  # all it does besides is the dynamic linker's
    dumps(t, v, statuses["dump"], loading)
    restores(t, v, statuses["restore"], loading)
    t.note(f"exit statuses: {statuses} (seed {seed})")
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all").status)


trial.main(body, 7200 if sweep.FULL else 280)
