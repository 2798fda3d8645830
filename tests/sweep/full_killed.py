#!/usr/bin/python3
"""fsnap dump is killed at its N-th system call, for every N (FSNAP_SWEEP=full) or a sample of them, while the target
holds full queues of every kind (programs/bag.py): nothing of what is in them is consumed, doubled or changed, and
nothing of fsnap's is left on the machine. Then the same to dump --kill and to restore."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bag  # noqa: E402
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

POINTS, SECONDS = 40, 20


def points(t, *words):
    status, told = sweep.killed_at(t, 0, 0, *words)
    t.expect(f"counted {words}", 0, status)
    return int(told.split()[0])


def left_running(t, b):
    total = points(t, "dump", "-t", b.pid, "--name", "counted")
    t.expect("after the counted dump", [], b.wrong())
    before, began, tried = bag.machine(t), time.monotonic(), 0
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        _, told = sweep.killed_at(t, number, random.choice((0, 0, 30)), "dump", "-t", b.pid, "--name", "try")
        tried += 1
        t.fsnap.run("rm", "try")
        if not t.expect(f"killed at {told}", [], b.wrong()):
            b.start()
            before = bag.machine(t)
            continue
        t.expect(f"left behind, killed at {told}", [], bag.strange(t, before))
    t.note(f"dump: {tried} of {total} stops tried")


def ended(t, b):
    """dump --kill: either the target is unharmed or it has gone and the image is whole."""
    total = points(t, "dump", "-t", b.pid, "--name", "counted.kill", "--kill")
    gone, tried, began = 0, 0, time.monotonic()
    for number in sweep.numbers(total, POINTS // 2):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        if not children.tree(b.pid) or b.asked > 20:
            b.start()
        _, told = sweep.killed_at(t, number, 0, "dump", "-t", b.pid, "--name", "try", "--kill")
        tried += 1
        time.sleep(0.01)
        left = children.wait_gone([b.pid], 0.05)
        if left:
            if not t.expect(f"dump --kill killed at {told}", [], b.wrong()):
                b.start()
        else:
            gone += 1
            t.expect(f"{told}: gone, and the image verifies", 0, t.fsnap.run("verify", "try").status)
        t.fsnap.run("rm", "try")
    t.note(f"dump --kill: {tried} of {total} stops tried, {gone} targets had gone")


def restored(t, b):
    """Nothing is left, not even objects with a name of their own: the guard takes them back (engine/takeback.h)."""
    b.start()
    t.dump(b.pid, "--kill", "--name", "kept")
    total = points(t, "restore", "kept", "-d")
    t.expect("after the counted restore", [], b.wrong())
    b.end()
    b.remove_names()
    before, began, tried, all_there = bag.machine(t), time.monotonic(), 0, 0
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        _, told = sweep.killed_at(t, number, 0, "restore", "kept", "-d")
        tried += 1
        where = f"restore killed at {told}"
        # Helpers that were left go by themselves; who lives on had been let live.
        children.wait_gone([p for p in bag.processes() if p != b.pid], 1)
        if os.path.exists(f"/proc/{b.pid}"):
            all_there += 1
        else:
            t.expect(f"left behind, {where}", [], bag.strange(t, before, 1))
            if not t.expect(f"{where}: the next one", 0, t.fsnap.run("restore", "kept", "-d").status):
                b.remove_names()
                continue
        t.expect(f"restored, after a {where}", [], b.wrong())
        b.end()
        b.remove_names()
    t.note(f"restore: {tried} of {total} stops tried, {all_there} all there")


def body(t):
    t.note(f"seed {sweep.seed()}")
    b = bag.Bag(t)
    b.start()
    t.expect("before anything", [], b.wrong())
    left_running(t, b)
    ended(t, b)
    restored(t, b)


trial.main(body, 7200 if sweep.FULL else 280)
