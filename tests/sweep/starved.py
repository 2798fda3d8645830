#!/usr/bin/python3
"""One allocation of fsnap fails, each in turn (FSNAP_SWEEP=full) or a sample of them, of a dump; full: also of live dumps,
restores and what looks at images. It says that there is no memory, or does without; the target is unharmed, no process
is left, the images are whole."""

import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

POINTS, SECONDS = 24, 15  # of each command; of all
STATUSES = (0, 1, 3, 4, 5, 6, 125)


class Ration:
    """The file by which the command is told which allocation fails, and tells how many there were (starve.c)."""
    def __init__(self, path):
        self.path = path
        os.environ["FSNAP_STARVE"] = path

    def set(self, failing):
        with open(self.path, "wb") as f:
            f.write(struct.pack("QQQ", failing, 0, 0))

    def seen(self):
        with open(self.path, "rb") as f:
            return struct.unpack("QQQ", f.read(24))[1:]


def starved(t, ration, number, *words):
    ration.set(number)
    result = t.fsnap.run(*words)
    _count, failed = ration.seen()
    where = f"{' '.join(map(str, words))}: allocation {number}"
    if number:
        t.expect_true(f"{where} (status {result.status}): a proper end: {result.err[-300:]}", result.status in STATUSES)
    if result.status and result.status in STATUSES:
        said = result.message
        t.expect_true(f"{where} (status {result.status}): says why: {said[-300:]}", said if "--json" in words else "fsnap: " in said)
        t.expect(f"{where}: knows the word for it: {said[-300:]}", False, "Success" in said or "does not decode" in said)
    return result.status, failed, where


def counted(t, ration, *words):
    status, _failed, where = starved(t, ration, 0, *words)
    t.expect(where, 0, status)
    return ration.seen()[0]


class Turns:
    """Which allocations of which command are to fail: all of them, or some of each while there is time."""
    def __init__(self):
        self.began = time.monotonic()
        self.points = 0

    def of(self, total, share):
        for number in sweep.numbers(total, POINTS):
            if not sweep.FULL and time.monotonic() - self.began > SECONDS * share:
                return
            self.points += 1
            yield number


def dumps(t, v, ration, turns, share, *options):
    words = ("dump", "-t", v.pid, "--name", "try", *options)
    total = counted(t, ration, *words)
    ration.set(0)
    t.fsnap.run("rm", "try")
    for number in turns.of(total, share):
        status, _failed, where = starved(t, ration, number, *words)
        wrong = v.complaints()
        if not t.expect(f"{where} (status {status}): the target", [], wrong[:8]):
            v.stop()
            v.start()
            words = ("dump", "-t", v.pid, *words[3:])
        ration.set(0)
        listed = {x["name"]: x.get("error") for x in t.fsnap.run("list", "--json").json["images"]}
        t.expect(f"{where}: its image exists", status == 0, "try" in listed)
        t.expect(f"{where}: damaged images", {}, {x: y for x, y in listed.items() if y})
        t.fsnap.run("rm", "try")


def restores(t, v, ration, turns, share, *words):
    total = counted(t, ration, "restore", *words)
    for number in turns.of(total, share):
        v.stop()
        children.statuses.clear()
        status, _failed, where = starved(t, ration, number, "restore", *words)
        if status == 0:
            v.forget_harm()
            t.expect(f"{where}: what was restored", [], v.complaints())
        else:
            here = [int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1]
            left = children.wait_gone(here, 2)
            if not t.expect(f"{where} (status {status}): processes left", [], left):
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                children.wait_gone(left, 5)


def reads(t, ration, turns, share, *words):
    """What only looks."""
    for number in turns.of(counted(t, ration, *words), share):
        starved(t, ration, number, *words)


def body(t):
    seed = sweep.seed()
    t.fsnap.binary = os.path.join(t.helpers, "fsnap_starved")
    ration, turns = Ration(t.path("ration")), Turns()
    ration.set(0)
    v = victim.Victim(t)
    v.start()
    dumps(t, v, ration, turns, 1)
    ration.set(0)
    t.dump(v.pid, "--name", "seen")
    reads(t, ration, turns, 1.2, "inspect", "seen", "--json")
    reads(t, ration, turns, 1.3, "core", "seen", "-o", t.path("core"))
    reads(t, ration, turns, 1.4, "report", "seen", "-o", t.path("report.html"))
    if sweep.FULL:
        others(t, v, ration, turns)
    ration.set(0)
    t.note(f"{turns.points} allocations refused (seed {seed})")
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all").status)


def others(t, v, ration, turns):
    """What has not been gone through as a whole yet: by hand only."""
    dumps(t, v, ration, turns, 0.4, "--live", "--compress", "zstd")
    looks = (("list",), ("inspect", "seen"), ("inspect", "seen", "--json"), ("verify", "seen"),
             ("report", "seen", "-o", t.path("report.html")), ("core", "seen", "-o", t.path("core")), ("doctor",))
    for i, words in enumerate(looks):
        reads(t, ration, turns, 0.4 + 0.3 * (i + 1) / len(looks), *words)
    ration.set(0)
    t.dump(v.pid, "--name", "kept", "--kill")
    restores(t, v, ration, turns, 0.9, "kept", "-d")
    v.stop()
    children.statuses.clear()
    restores(t, v, ration, turns, 1, "kept", "-d", "--memory", "stream")


trial.main(body, 7200 if sweep.FULL else 280)
