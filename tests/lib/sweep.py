"""What sweeps share: which points to take, and fsnap ended at one of them.

    FSNAP_SWEEP=full         every point instead of a sample
    FSNAP_SWEEP_RANGE=A-B    of these only
    FSNAP_SWEEP_SEED=N       the same sample again
    FSNAP_SWEEP_PLACES=FILE  of places in fsnap: those that do not stand in FILE, to which they are added; that many
                             runs of different drivers together go through each place once (tools/coverage)
    FSNAP_SWEEP_CALLERS=N    so many callers tell places apart (programs/site.h); a FILE is of one N
"""

import os
import random
import re
import signal
import struct
import time

import children

LOADER = 127  # the dynamic linker could not load a library
# LeakSanitizer cannot look under ptrace(2). A sanitizer whose own call fails ends the process, as the loader does; what it
# finds is a finding all the same (run-checked).
BEFORE_MAIN = (signal.SIGABRT, 128 + signal.SIGABRT, signal.SIGSEGV, 128 + signal.SIGSEGV)  # later it tells of the latter itself
TRACED = f"detect_leaks=0:allocator_may_return_null=1:exitcode={LOADER}"
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


def traced(**more):
    """The environment of a command that is started by stopat."""
    names = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS") if children.CHECKED else ()
    return {**os.environ, **{name: f"{os.environ.get(name, '')}:{TRACED}" for name in names}, **more}


def killed_at(t, number, ms, *words):
    """(exit status, where it was) of fsnap WORDS ended at its number-th stop; see stopat.c."""
    told = t.path("told")
    if os.path.exists(told):
        os.unlink(told)
    argv = [os.path.join(t.helpers, "stopat"), str(number), str(ms), told, t.fsnap.binary,
            *(["--store", t.fsnap.store] if t.fsnap.name_store else []), *map(str, words)]
    pid = children.spawn(argv, out=t.path("stopat.out"), env=traced(FSNAP_STORE=t.fsnap.store))
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
    return properly_ended(t, status, f"{words[0]} failing at {told}", told)


def properly_ended(t, status, where, told):
    said = tell(t)
    if status is None:
        t.fail(f"{where}: hangs")
        for pid in [int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1]:
            if re.search(b"stopat|fsnap_starved", open(f"/proc/{pid}/cmdline", "rb").read()):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    elif status == LOADER or children.CHECKED and abs(status) in BEFORE_MAIN:
        pass
    elif status not in (0, 1, 3, 4, 5, 6, 125):
        t.fail(f"{where}: exit status {status}: {said[-300:]}")
    elif status:
        t.expect(f"{where}: says why ({said[-300:]})", True,
                 "fsnap: " in said or '"error":' in said or "damaged: " in said)
        t.expect(f"{where}: knows the word for it: {said[:300]}", False, "Success" in said)
        if "not permitted" not in told:
            t.expect(f"{where}: nothing is advised that does not help: {said[-300:]}", False, "as root or as the owner" in said)
    t.checks += 1
    return status, where


PLACES = os.environ.get("FSNAP_SWEEP_PLACES")
THOROUGH = FULL or PLACES


RATION = struct.Struct("5Q8192Q")  # starve.c
OF_MEMORY = "memory:"


def calls(t, *words, ends=(0,)):
    """[(place, number of the system call)], of all calls of fsnap WORDS that can fail (stopat.c)."""
    status, _told = killed_at(t, 0, "sites", *words)
    t.expect(f"{words}: all its places: ends with one of {ends} ({status})", True, status in ends)
    return [tuple(line.split()) for line in read_lines(t.path("told"))]


def places(t, points, *words, again=lambda: None, ends=(0,)):
    """From where fsnap WORDS makes calls that can fail (stopat.c), and allocations (starve.c): all, those not yet gone
    through, or so many. again(): called in between, for it does so twice."""
    found = [place for place, _nr in calls(t, *words, ends=ends)]
    again()
    status, ration = starving(t, 0, *words)
    t.expect(f"{words}: all its allocations: ends with one of {ends} ({status})", True, status in ends)
    return sample(found, points) + sample([f"{OF_MEMORY}{x:x}" for x in ration[5:] if x], points)


def starving(t, place, *words):
    """(exit status, what the ration says) of fsnap WORDS, which gets no memory at this place, or lists all."""
    ration = t.path("ration")
    with open(ration, "wb") as f:
        f.write(RATION.pack(0, 0, 0, place, not place, *[0] * 8192))
    argv = [os.path.join(t.helpers, "fsnap_starved"), *(["--store", t.fsnap.store] if t.fsnap.name_store else []), *map(str, words)]
    pid = children.spawn(argv, out=t.path("stopat.out"),
                         env={**os.environ, "FSNAP_STORE": t.fsnap.store, "FSNAP_STARVE": ration})
    status = children.wait(pid, 30)
    with open(ration, "rb") as f:
        return status, RATION.unpack(f.read())


def failing(t, place, *words):
    """(exit status, where) of fsnap WORDS, a call or an allocation of which fails at this place."""
    if not place.startswith(OF_MEMORY):
        return faulted(t, place, *words, how="site")
    if os.path.exists(t.path("stopat.out")):
        os.unlink(t.path("stopat.out"))
    status, _ration = starving(t, int(place.removeprefix(OF_MEMORY), 16), *words)
    return properly_ended(t, status, f"{words[0]} without {place}", "no memory")


def sample(found, points):
    if PLACES:
        done = set(read_lines(PLACES)) if os.path.exists(PLACES) else set()
        return [x for x in found if x not in done]
    return found if FULL else random.sample(found, min(points, len(found)))


def passed(place):
    """It has been gone through."""
    if PLACES:
        with open(PLACES, "a", encoding="ascii") as f:
            f.write(place + "\n")


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return f.read().splitlines()


def counted(t, *words):
    status, told = killed_at(t, 0, 0, *words)
    t.expect("counted", 0, status)
    return int(told.split()[0])
