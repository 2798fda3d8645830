#!/usr/bin/python3
"""fsnap dump is killed at its N-th system call, for every N (FSNAP_SWEEP=full) or a sample of them: the target
goes on unharmed, all its threads do; no half image is seen; the next dump works."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

POINTS, SECONDS = 80, 14


def store_is_whole(t, kept, what):
    listed = t.fsnap.run("list", "--json").json["images"]
    t.expect(f"{what}: the earlier image is listed", True, kept in [x["name"] for x in listed])
    t.expect(f"{what}: damaged images", [], [x["name"] for x in listed if x.get("error")])


def body(t, *options, seconds=SECONDS):
    """options: of every dump that is killed."""
    seed = sweep.seed()
    v = victim.Victim(t)
    v.start()
    t.expect("before anything", [], v.complaints())
    kept = t.dump(v.pid, "--name", "kept")["image"]
    t.expect("after a dump", [], v.complaints())
    status, told = sweep.killed_at(t, 0, 0, "dump", "-t", v.pid, "--name", "counted", *options)
    t.expect("counted", (0, []), (status, v.complaints()))
    total = int(told.split()[0])
    t.note(f"{total} system call stops in a dump; seed {seed}")
    began, tried, left, interrupted = time.monotonic(), 0, [], []
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > seconds:
            break
        ms = random.choice((0, 0, 5, 60))
        status, told = sweep.killed_at(t, number, ms, "dump", "-t", v.pid, "--name", f"try{number}", *options)
        tried += 1
        wrong = v.complaints()
        if v.was_interrupted(wrong, told):
            interrupted.append(number)
        elif v.left_behind(wrong):
            left.append(told)
            v.settle()
        elif wrong:
            t.fail(f"killed at {told}, after {ms} ms: {wrong[:8]}")
            v.stop()
            v.start()
        t.checks += 1
        if tried % 16 == 0:
            store_is_whole(t, kept, told)
            t.fsnap.run("rm", *[f"try{n}" for n in range(number - 15, number + 1)])
            t.dump(v.pid, "--name", f"after{number}")
            wrong = v.complaints()
            if v.taken_out(wrong):
                v.settle()
            else:
                t.expect(f"after the dump that follows {told}", [], wrong)
    t.note(f"epoll_wait was interrupted (W4) at {interrupted}")
    t.expect_true("that is some microseconds of all the time", len(interrupted) <= tried * victim.INTERRUPTED + 1)
    t.note(f"{tried} tried; an unused descriptor or mapping left behind (W2) at {left}")
    store_is_whole(t, kept, "at the end")
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all").status)


if __name__ == "__main__":
    trial.main(body, 7200 if sweep.FULL else 280)
