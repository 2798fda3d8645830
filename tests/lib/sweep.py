"""What sweeps share: which points to take, and fsnap ended at one of them.

    FSNAP_SWEEP=full         every point instead of a sample
    FSNAP_SWEEP_RANGE=A-B    of these only
    FSNAP_SWEEP_SEED=N       the same sample again
"""

import os
import random
import signal
import time

import children

LOADER = 127  # the dynamic linker could not load a library
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


def tell(t):
    with open(t.path("stopat.out"), encoding="utf-8", errors="replace") as f:
        return f.read().strip()


def faulted(t, number, *words, how="fault"):
    """(exit status, where) of fsnap WORDS whose number-th call fails (see stopat.c); what it says must be proper."""
    if os.path.exists(t.path("stopat.out")):
        os.unlink(t.path("stopat.out"))
    status, told = killed_at(t, number, how, *words)
    said = tell(t)
    where = f"{words[0]} failing at {told}"
    if status is None:
        t.fail(f"{where}: hangs")
        for pid in [int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1]:
            if b"stopat" in open(f"/proc/{pid}/cmdline", "rb").read():
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    elif status == LOADER:
        pass
    elif status not in (0, 1, 3, 4, 5, 6, 125):
        t.fail(f"{where}: exit status {status}: {said[-300:]}")
    elif status:
        t.expect(f"{where}: says why ({said[-300:]})", True, "fsnap: " in said)
        t.expect(f"{where}: knows the word for it: {said[:300]}", False, "Success" in said)
    t.checks += 1
    return status, where


def counted(t, *words):
    status, told = killed_at(t, 0, 0, *words)
    t.expect("counted", 0, status)
    return int(told.split()[0])
