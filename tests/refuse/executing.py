#!/usr/bin/python3
"""A target whose threads execute programs all the time: whoever does takes the main thread's number, and the kernel kills the
others, of which some are being traced by then. No dump waits for what only it could end, none takes the one for the
other, the target goes on, and what was saved runs."""

import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

DUMPS = 40
WATCHED = 4  # seconds
LONG = 20  # seconds: the dump hangs


def times(t):
    with open(t.path("times"), "rb") as file:
        return struct.unpack("Q", file.read())[0]


def goes_on(t, what, pid):
    before = times(t)
    t.until(f"{what}: it goes on", lambda: times(t) > before + 3)
    t.expect_true(f"{what}: it lives", os.path.exists(f"/proc/{pid}"))


def runs_again(t, what, image):
    pid = t.restore(image)["pid"]
    goes_on(t, f"{what}, restored", pid)
    children.end(pid)


def try_with(t, threads):
    what, images = f"{threads} threads besides", []
    pid = t.start([os.path.join(t.helpers, "executes"), str(threads)])
    t.until(f"{what}: it executes", lambda: os.path.exists(t.path("times")) and os.path.getsize(t.path("times")) == 8)
    for i in range(DUMPS):
        began = time.monotonic()
        result = t.fsnap.run("dump", "-t", pid, "--name", f"x{threads}-{i}", "--json", timeout=2 * LONG)
        t.expect_true(f"{what}: dump {i} ends soon", time.monotonic() - began < LONG * children.PATIENCE)
        if result.status:
            t.note(f"{what}: dump {i}: {result.message}")
        else:
            images.append(f"x{threads}-{i}")
    t.expect_true(f"{what}: of {DUMPS} dumps nearly all go well: {len(images)}", len(images) >= DUMPS - 3)
    goes_on(t, what, pid)
    children.end(pid)
    for image in images[-2:]:
        runs_again(t, what, image)
    os.unlink(t.path("times"))


def watched(t):
    """Image upon image: those that go wrong once in a thousand are among them."""
    pid = t.start([os.path.join(t.helpers, "executes"), "6", "30"])
    handle = t.fsnap.start("watch", "-t", pid, "--every", "2ms", "--keep", "3", "--max-share", "80")
    time.sleep(WATCHED)
    os.kill(handle[0], signal.SIGINT)
    result = t.fsnap.finish(handle, LONG)
    t.expect(f"a watch ends well: {result.message}", 0, result.status)
    goes_on(t, "watched", pid)
    children.end(pid)


def body(t):
    for threads in (0, 1, 4):
        try_with(t, threads)
    watched(t)


trial.main(body)
