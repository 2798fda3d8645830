"""What sweeps share: which points to take, and fsnap ended at one of them.

    FSNAP_SWEEP=full         every point instead of a sample
    FSNAP_SWEEP_RANGE=A-B    of these only
    FSNAP_SWEEP_SEED=N       the same sample again
"""

import os
import random
import time

import children

FULL = os.environ.get("FSNAP_SWEEP") == "full"
FIRST, LAST = (int(x) for x in os.environ.get("FSNAP_SWEEP_RANGE", "1-1000000").split("-"))


def seed():
    number = int(os.environ.get("FSNAP_SWEEP_SEED", time.time_ns() % 100000))
    random.seed(number)
    return number


def numbers(total, points):
    """All from 1 to total, or about `points` of them, evenly, from a random offset on."""
    step = 1 if FULL else max(1, total // points)
    first = max(FIRST, 1) if FULL else random.randrange(1, step + 1)
    return list(range(first, min(total, LAST) + 1, step))


def killed_at(t, number, ms, *words):
    """(exit status, where it was) of fsnap WORDS ended at its number-th stop; see stopat.c."""
    told = t.path("told")
    if os.path.exists(told):
        os.unlink(told)
    argv = [os.path.join(t.helpers, "stopat"), str(number), str(ms), told, t.fsnap.binary,
            "--store", t.fsnap.store, *map(str, words)]
    pid = children.spawn(argv, out=t.path("stopat.out"))
    status = children.wait(pid, 30)
    with open(told, encoding="utf-8") as f:
        return status, f.read().strip()
