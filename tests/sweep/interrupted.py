#!/usr/bin/python3
"""One system call of fsnap is interrupted (EINTR), or reads or writes less than it was asked to, each in turn
(FSNAP_SWEEP=full) or a sample of them, while another dump goes into the same store. Half of something is never taken
for all of it: the command ends as if nothing had been, with the same tree in the image, or says what was wrong; the
target is unharmed, and so is the image of the other."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

POINTS, SECONDS = 40, 3


def shape(t, image):
    """How much an image says there is: of it no half may be missing."""
    said = t.fsnap.run("inspect", image, "--json", timeout=60)
    t.expect(f"inspect {image}", 0, said.status)
    records = said.json["records"]
    return ([len(mm["vmas"]) for mm in records["mm"]], len(records["file"]), len(records["mapped"]),
            [sorted((key, len(value)) for key, value in process.items() if isinstance(value, list) and key != "pending")
             for process in records["process"]])


def told(t, how, status, where):
    """What was given up can be begun again; by hand, which calls that were is of interest."""
    if status and sweep.FULL:
        t.note(f"{how}: given up ({status}): {where}: {sweep.tell(t)[-200:]}")


def points(total, loading):
    began = time.monotonic()
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            return
        if number >= loading:
            yield number


def dumps(t, v, other, how, seen, loading):
    words = ("dump", "-t", v.pid, "--name")
    total = sweep.counted(t, *words, "counted")
    want = shape(t, "counted")
    for number in points(total, loading):
        beside = t.fsnap.start("dump", "-t", other, "--name", "beside")
        status, where = sweep.faulted(t, number, *words, "one", how=how)
        seen[status] = seen.get(status, 0) + 1
        told(t, how, status, where)
        t.expect(f"{where}: the dump beside it", 0, t.fsnap.finish(beside).status)
        wrong = v.complaints()
        if not t.expect(f"{where} (status {status}): the target", [], wrong[:8]):
            v.stop()
            v.start()
            want = shape(t, t.dump(v.pid, "--name", f"again{number}")["image"])
        if status == 0:
            t.expect(f"{where}: the tree in the image", want, shape(t, "one"))
        t.expect(f"{where}: verify", 0, t.fsnap.run("verify", "--all").status)
        t.fsnap.run("rm", "one")
        t.expect(f"{where}: the other image", 0, t.fsnap.run("rm", "beside").status)
    t.fsnap.run("rm", "counted")


def restores(t, v, how, seen, loading):
    v.stop()
    children.statuses.clear()
    total = sweep.counted(t, "restore", "kept", "-d")
    for number in points(total, loading):
        v.stop()
        children.statuses.clear()
        status, where = sweep.faulted(t, number, "restore", "kept", "-d", how=how)
        seen[status] = seen.get(status, 0) + 1
        told(t, how, status, where)
        if status == 0:
            v.forget_harm()
            t.expect(f"{where}: what was restored", [], v.complaints())
    v.stop()
    children.statuses.clear()
    t.restore("kept")
    v.forget_harm()


def body(t):
    seed = sweep.seed()
    v = victim.Victim(t)
    v.start()
    other = t.start(["/usr/bin/sleep", "1000"], name="other")
    loading = sweep.counted(t, "--version")  # all it does besides is the dynamic linker's
    seen = {how: {"dump": {}, "restore": {}} for how in ("interrupt", "shorten")}
    for how, statuses in seen.items():
        dumps(t, v, other, how, statuses["dump"], loading)
    os.kill(other, 9)
    t.dump(v.pid, "--name", "kept", "--kill")
    for how, statuses in seen.items():
        restores(t, v, how, statuses["restore"], loading)
    t.note(f"exit statuses: {seen} (seed {seed})")


trial.main(body, 7200 if sweep.FULL else 280)
