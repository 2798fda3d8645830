#!/usr/bin/python3
"""fsnap dump --encrypt into a store in memory: no file of that store ever holds a page, or a name, as the target has it.
Not when the dump is stopped at any moment, not when it is killed at its N-th system call, or that call fails, not in space
that was a plain image's before, not when the image is restored, compacted or removed. FSNAP_SWEEP=full: every N."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

POINTS, STOPS, SECONDS = 30, 24, 9  # of each way; for both together
PAGE, NAME = b"what nobody is to read", b"whose name nobody is to know"

def holds(path):
    with open(path, "rb") as f:
        content = f.read()
    return PAGE in content or NAME in content


def plain(t):
    """Files of the store that hold any of it; the store may be at work."""
    found = []
    for where, _, names in os.walk(t.fsnap.store):
        for name in names:
            try:
                if holds(os.path.join(where, name)):
                    found.append(os.path.join(os.path.basename(where), name))
            except FileNotFoundError:
                pass
    return found


def plain_open(t, pid):
    """Files of the store's file system that it has open, with or without a name."""
    device, found = os.stat(t.fsnap.store).st_dev, []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        if os.stat(path).st_dev == device and os.path.isfile(path) and holds(path):
            found.append(os.readlink(path))
    return found


def ways(t):
    yield "--encrypt", t.path("key")
    yield "--encrypt", t.path("key"), "--compress", "zstd:1", "--live"
    if " aes " in open("/proc/cpuinfo", encoding="ascii").read():
        yield "--encrypt", t.path("key"), "--cipher", "aes256", "--no-live"


def clean(t):
    t.fsnap.run("rm", "--all", "--trim")


def honest(t, pid):
    """What is looked for can be found; and what the store had of it goes."""
    t.dump(pid, "--name", "plain")
    t.expect("of a plain image both can be read", ["images/plain.fsnap"], plain(t))
    t.expect("rm", 0, t.fsnap.run("rm", "plain").status)
    t.expect("the pool has what it was", 1, len(plain(t)))
    for number, how in enumerate(ways(t)):
        t.dump(pid, "--name", f"over{number}", *how)
        t.expect(f"{how}: in space that was a plain image's", [], [x for x in plain(t) if x.startswith("images/")])
        t.expect("rm", 0, t.fsnap.run("rm", f"over{number}").status)
        t.dump(pid, "--name", "plain")
        t.expect("rm", 0, t.fsnap.run("rm", "plain").status)
    clean(t)
    t.expect("rm --all --trim", [], plain(t))


def stopped(t, pid, how):
    """The dump stands still, again and again."""
    seen = 0
    while seen < STOPS:
        handle = t.fsnap.start("dump", "-t", pid, "--name", f"stopped{seen}", *how)
        while children.wait(handle[0], random.uniform(0, 0.006)) is None:
            os.kill(handle[0], signal.SIGSTOP)
            t.expect(f"{how}: stopped", [], plain(t) + plain_open(t, handle[0]))
            os.kill(handle[0], signal.SIGCONT)
            seen += 1
        seen += 1
    t.expect(f"{how}: afterwards", [], plain(t))
    clean(t)
    return seen


def ended(t, pid, how, seconds):
    """It is killed, or a call of it fails: at every point, or at some."""
    total, began, tried = sweep.counted(t, "dump", "-t", pid, "--name", "counted", *how), time.monotonic(), 0
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > seconds:
            break
        words = ("dump", "-t", pid, "--name", f"try{number}", *how)
        if tried % 3 == 2:
            told = sweep.faulted(t, number, *words)[1]
        else:
            told = f"killed at {sweep.killed_at(t, number, 0, *words)[1]}"
        t.expect(f"{how}: {told}", [], plain(t))
        tried += 1
        if tried % 16 == 0:
            clean(t)
    clean(t)
    return tried, total


def used(t, pid):
    """What else works on images: none of it writes into the store what it reads there."""
    how = ("--encrypt", t.path("key"))
    chained = t.fsnap.run("track", "-t", pid).status == 0  # else this kernel cannot
    for name in ("first", "second", "third"):
        t.dump(pid, "--name", name, *how, *(["--kill"] if name == "third" else []))
    os.environ["FSNAP_KEY"] = t.path("key")
    if chained:
        t.expect("compact", 0, t.fsnap.run("compact", "second").status)
        t.expect("compacted", [], plain(t))
    for memory in ("stream", "eager"):
        pid = t.restore("third", "--memory", memory)["pid"]
        t.expect(f"restored, {memory}", [], plain(t))
        if memory == "stream":
            os.kill(pid, signal.SIGKILL)
            t.expect("ended", [], children.wait_gone([pid], 5))
    for words in (("verify", "--all"), ("inspect", "third"), ("prefetch", "third"), ("rm", "second", "third")):
        t.expect(f"{words[0]}: exit status", 0, t.fsnap.run(*words).status)
        t.expect(f"{words[0]}", [], plain(t))


def body(t):
    t.note(f"seed {sweep.seed()}")
    t.fsnap.name_store = False  # keygen has none
    t.expect("keygen", 0, t.fsnap.run("keygen", "--secret", t.path("key")).status)
    t.fsnap.name_store = True
    os.mkdir(t.path("memory"))
    sandbox.mount("tmpfs", t.path("memory"), "tmpfs")
    t.fsnap.store = t.path("memory/store")
    pid = t.start([os.path.join(t.helpers, "confidant"), t.work], ready="ready")
    honest(t, pid)
    everything = list(ways(t))
    for how in everything:
        stops = stopped(t, pid, how)
        tried, total = ended(t, pid, how, SECONDS / len(everything))
        t.note(f"{' '.join(how[2:])}: stopped {stops} times, ended at {tried} of {total} points")
    used(t, pid)


trial.main(body, 7200 if sweep.FULL else 280)
