#!/usr/bin/python3
"""As killed_dump.py, with fsnap watch: killed in its first image, and in later ones, for which it has kept what it knew.
The target goes on unharmed, nothing of the tracking is left in it, and the images made so far are whole."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

POINTS, SECONDS = 60, 12
IMAGES = 4


def words(pid, name):
    return ["watch", "-t", pid, "--every", "1ms", "--max-share", "100%", "--name", name, "--quiet"]


def counted(t, pid):
    """Stops of the system calls of some images, the first among them."""
    told = t.path("told")
    argv = [os.path.join(t.helpers, "stopat"), "0", "0", told, t.fsnap.binary, "--store", t.fsnap.store,
            *map(str, words(pid, "counted"))]
    stopat = children.spawn(argv, out=t.path("stopat.out"), env=sweep.traced())
    last = os.path.join(t.fsnap.store, "images", f"counted-{IMAGES:06}.fsnap")
    t.until("some images", lambda: os.path.exists(last), 30)
    with open(f"/proc/{stopat}/task/{stopat}/children", encoding="ascii") as f:
        os.kill(int(f.read().split()[0]), signal.SIGINT)
    t.expect("counted", 0, children.wait(stopat, 20))
    with open(told, encoding="utf-8") as f:
        return int(f.read().split()[0])


def expect_whole(t, what):
    t.expect(f"{what}: damaged images", [],
             [x["name"] for x in t.fsnap.run("list", "--json").json["images"] if x.get("error")])


def body(t):
    seed = sweep.seed()
    v = victim.Victim(t)
    v.start()
    t.expect("before anything", [], v.complaints())
    total = counted(t, v.pid)
    t.expect("after the counted one", [], v.complaints())
    t.note(f"{total} system call stops in {IMAGES} images or some more; seed {seed}")
    began, tried, left, interrupted = time.monotonic(), 0, [], 0
    numbers = sweep.numbers(total, POINTS)
    if not sweep.FULL:
        random.shuffle(numbers)
    for number in numbers:
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        _, told = sweep.killed_at(t, number, random.choice((0, 0, 5, 60)), *words(v.pid, f"try{number}"))
        tried += 1
        wrong = v.complaints()
        if v.was_interrupted(wrong, told):
            interrupted += 1
        elif v.left_behind(wrong):
            left.append(told)
            v.settle()
        elif wrong:
            t.fail(f"killed at {told}: {wrong[:8]}")
            v.stop()
            v.start()
        t.checks += 1
        if tried % 8 == 0:
            expect_whole(t, told)
            t.dump(v.pid, "--name", f"after{number}")
            wrong = v.complaints()
            if v.taken_out(wrong):
                v.settle()
            else:
                t.expect(f"after the dump that follows {told}", [], wrong)
    t.note(f"epoll_wait was interrupted (W4) {interrupted} times")
    t.expect_true("that is some microseconds of all the time", interrupted <= tried * victim.INTERRUPTED + 1)
    t.note(f"{tried} tried; an unused descriptor or mapping left behind (W2) at {left}")
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all").status)


trial.main(body, 7200 if sweep.FULL else 280)
