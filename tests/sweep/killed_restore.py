#!/usr/bin/python3
"""fsnap restore is killed at its N-th system call, for every N (FSNAP_SWEEP=full) or a sample of them:
either nothing of the tree is left or all of it runs; the image still verifies; the next restore works."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

POINTS, SECONDS = 60, 13


def everybody():
    """All processes here but ours."""
    children.reap()
    return sorted(int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1)


def body(t):
    seed = sweep.seed()
    v = victim.Victim(t)
    v.start()
    pids = children.tree(v.pid)
    kept = t.dump(v.pid, "--name", "kept", "--kill")["image"]
    status, told = sweep.killed_at(t, 0, 0, "restore", kept, "-d")
    t.expect("counted", 0, status)
    t.expect("after a restore", [], v.complaints())
    total = int(told.split()[0])
    t.note(f"{total} system call stops in a restore; seed {seed}")
    began, tried, outcome = time.monotonic(), 0, {"nothing": 0, "all": 0}
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        v.stop()
        children.statuses.clear()
        ms = random.choice((0, 0, 5, 60))
        status, told = sweep.killed_at(t, number, ms, "restore", kept, "-d")
        where = f"killed at {told}, after {ms} ms"
        left = children.wait_gone(pids, 1.0)
        tried += 1
        outcome["all" if left else "nothing"] += 1
        t.expect(f"{where}: who is here", left, everybody())
        if left:
            v.forget_harm()
            complaints = v.complaints()
            # The window that engine/launch.c admits (let_live): tasks are let live one by one.
            if complaints and " (4200," in told:
                t.note(f"{where}: only some were let live (window of let_live)")
                whole, complaints = False, []
            else:
                whole = not complaints
            t.expect(f"{where}: of those restored", [], complaints)
            if not whole:
                for pid in everybody():
                    os.kill(pid, 9)
                t.expect("gone", [], children.wait_gone(everybody(), 5))
        elif tried % 4 == 0:
            t.expect(f"{where}: verify", 0, t.fsnap.run("verify", kept).status)
            children.statuses.clear()
            t.restore(kept)
            v.forget_harm()
            t.expect(f"restored after being {where}", [], v.complaints())
    t.note(f"{tried} tried; left: {outcome}")
    v.stop()
    children.statuses.clear()
    t.restore(kept)
    v.forget_harm()
    t.expect("at the end", [], v.complaints())


trial.main(body, 7200 if sweep.FULL else 280)
