#!/usr/bin/python3
"""Memory that changes past the page tables, by a descriptor that was opened when tracking had begun long since (a ring of
io_uring with registered buffers): `fsnap track` and `fsnap watch` notice it, and each image holds what was there."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402


def said(t):
    with open(t.path("target.out"), encoding="utf-8") as file:
        return file.read().splitlines()


def ask(t, pid, signo, word):
    before = len(said(t))
    os.kill(pid, signo)
    t.until(f"it says {word}", lambda: len(said(t)) > before)
    return said(t)[-1]


def start(t):
    pid = t.start([os.path.join(t.helpers, "uring_late"), t.path("numbers")])
    t.until("it is ready", lambda: "ready" in said(t))
    return pid


def check(t, images):
    for image in images:
        pid = t.restore(image)["pid"]
        t.expect(f"{image}, restored", "0 of 64 pages are wrong", ask(t, pid, signal.SIGUSR2, "whether they are right"))
        children.end(pid)


def tracked(t):
    pid = start(t)
    t.fsnap.name_store = False
    t.expect("track", 0, t.fsnap.run("track", "-t", pid, "--heat", "never").status)
    images = []
    for i, signo in enumerate((0, signal.SIGUSR1, 0, signal.SIGUSR1, signal.SIGUSR1)):
        if signo:
            ask(t, pid, signo, "what it did")
        images.append(f"r{i}")
        t.dump(pid, "--name", images[-1], *(["--live"] if i == 4 else []))
    children.end(pid)
    check(t, images)


def watched(t):
    pid = start(t)
    handle = t.fsnap.start("watch", "-t", pid, "--name", "w", "--every", "50ms", "--keep", "0", "--max-share", "100")
    images = os.path.join(t.fsnap.store, "images")

    def newest():
        return max((int(x[2:8]) for x in os.listdir(images) if x.startswith("w-")), default=0) if os.path.isdir(images) else 0

    for _ in range(4):
        seen = newest()
        t.until("images come", lambda: newest() > seen + 3)  # noqa: B023
        ask(t, pid, signal.SIGUSR1, "what it did")
    seen = newest()
    t.until("images come", lambda: newest() > seen + 2)
    os.kill(handle[0], signal.SIGINT)
    t.fsnap.finish(handle)
    time.sleep(0.05)
    children.end(pid)
    check(t, [f"w-{n:06}" for n in sorted({newest() // 2, newest()})])


def body(t):
    tracked(t)
    watched(t)


trial.main(body)
