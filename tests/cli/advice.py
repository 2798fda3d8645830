#!/usr/bin/python3
"""What a program says about its memory by madvise(2) all the time, without a border of a mapping ever changing: a live dump,
and each image of a watch, has it as it was at that instant."""

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

PROGRAM = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
SIZE, DONTFORK, DOFORK = 1 << 20, 10, 11
at = libc.mmap(0x200000000000, SIZE, 3, 0x100022, -1, 0)
asked, state = False, 0
def on_signal(*_):
    global asked
    asked = True
def has():
    inside = False
    for line in open("/proc/self/smaps"):
        if line.split()[0].count("-") == 1 and not line.startswith("Vm"):
            inside = line.startswith(f"{at:x}-")
        elif inside and line.startswith("VmFlags"):
            return int(" dc" in line)
signal.signal(signal.SIGUSR1, on_signal)
open("ready", "w").close()
wrong = ""
while True:
    seen = has()
    if seen != state:
        wrong = f"{seen} instead of {state}"
    if asked:
        print(wrong or "as it should be", flush=True)
        signal.pause()
    libc.madvise(at, SIZE, DOFORK if state else DONTFORK)
    state = 1 - state
"""
IMAGES = 6


def said(t):
    with open(t.path("target.out"), encoding="utf-8") as file:
        return file.read().splitlines()


def start(t):
    if os.path.exists(t.path("ready")):
        os.unlink(t.path("ready"))
    return t.start([sys.executable, "-c", PROGRAM], ready="ready")


def check(t, images):
    for image in images:
        before = len(said(t))
        pid = t.restore(image)["pid"]
        os.kill(pid, signal.SIGUSR1)
        t.until(f"{image}, restored: it says", lambda: len(said(t)) > before)  # noqa: B023
        t.expect(f"{image}, restored", "as it should be", said(t)[-1])
        children.end(pid)


def live(t):
    pid, images = start(t), [f"live{i}" for i in range(IMAGES)]
    for image in images:
        t.dump(pid, "--live", "--name", image)
    children.end(pid)
    check(t, images)


def watched(t):
    pid = start(t)
    handle = t.fsnap.start("watch", "-t", pid, "--name", "w", "--every", "50ms", "--keep", "0", "--max-share", "100")
    folder = os.path.join(t.fsnap.store, "images")
    t.until("images come", lambda: os.path.isdir(folder) and sum(x.startswith("w-") for x in os.listdir(folder)) > IMAGES + 2)
    os.kill(handle[0], signal.SIGINT)
    t.fsnap.finish(handle)
    children.end(pid)
    check(t, sorted(x.removesuffix(".fsnap") for x in os.listdir(folder) if x.startswith("w-"))[1:IMAGES + 1])


def body(t):
    live(t)
    watched(t)


trial.main(body)
