#!/usr/bin/python3
"""fsnap watch refers to pages of private mappings of files, and of small mappings, in the image before as long as nobody
has written them and nobody gave one back. Here all that can befall such a page does, one thing at a time: each image is
what the program has then."""

import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

PAGES = 16

TARGET = """
import ctypes, json, mmap, os, signal

PAGE, PAGES = 4096, 16
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
for name in ("munmap", "mprotect", "madvise"):
    getattr(libc, name).argtypes = (ctypes.c_void_p, ctypes.c_size_t) + (ctypes.c_int,) * (name != "munmap")
RW, MINE, NAMELESS, FIXED, DONTNEED = 3, 2, 0x20, 0x10, 4

file = os.open("file", os.O_RDWR)

def map_at(where, fd):
    at = libc.mmap(where, PAGES * PAGE, RW, MINE | (FIXED if where else 0) | (NAMELESS if fd < 0 else 0), fd, 0)
    assert at == where or not where, at
    return at

def put(at, page, text):
    ctypes.memmove(at + page * PAGE, text.ljust(8, b"."), 8)

def give_back(at, page):
    assert libc.madvise(at + page * PAGE, PAGE, DONTNEED) == 0

def told(at, pages=PAGES):
    return [(ctypes.string_at(at + i * PAGE, 8) + ctypes.string_at(at + i * PAGE + 4088, 8)).decode("latin1")
            for i in range(pages)]

def say(name, value):
    with open(name + ".new", "w") as f:
        json.dump(value, f)
    os.rename(name + ".new", name)

own, fixed, small = map_at(None, file), map_at(None, file), map_at(None, -1)
small_size = 15 * PAGE  # less than what is watched for itself
libc.munmap(small + small_size, PAGE)
for page in range(8):
    for at in (own, fixed, small):
        put(at, page, b"first%d" % page)
assert libc.mprotect(fixed, PAGES * PAGE, 1) == 0

def give_back_write(at):
    give_back(at, 4)
    put(at, 4, b"again")

def exchange():
    libc.munmap(own, PAGES * PAGE)
    map_at(own, file)
    put(own, 5, b"other")

steps = [
    lambda: None,
    lambda: [put(at, 1, b"second") for at in (own, small)],
    lambda: [give_back(at, 2) for at in (own, fixed, small)],
    lambda: [put(at, 2, b"anew") for at in (own, small)],
    lambda: [give_back_write(at) for at in (own, small)],
    lambda: os.pwrite(file, b"changed.", 3 * PAGE),
    lambda: give_back(own, 3),
    exchange,
    lambda: None,
]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
step = 0
say("ready", {"fixed": fixed})
while True:
    if signal.sigwait([signal.SIGUSR1, signal.SIGUSR2]) == signal.SIGUSR1:
        steps[step]()
        step += 1
    say("told", {"own": told(own), "fixed": told(fixed), "small": told(small, 15)})
"""
STEPS = 9
POKED = 4  # behind this step somebody else writes memory that the program may only read


def told(t, pid, signo):
    if os.path.exists(t.path("told")):
        os.unlink(t.path("told"))
    os.kill(pid, signo)
    t.until("it has told", lambda: os.path.exists(t.path("told")))
    with open(t.path("told"), encoding="utf-8") as f:
        return json.load(f)


def poke(pid, at):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as f:
        f.seek(at + 6 * 4096)
        f.write(b"poked...")


def end(pid):
    os.kill(pid, signal.SIGKILL)
    children.wait_gone([pid], 10)


def body(t):
    with open(t.path("file"), "wb") as f:
        f.write(b"".join(b"file%04d" % i + bytes(4080) + b"theend%02d" % i for i in range(PAGES)))
    t.fsnap.name_store = False
    pid = t.start(["/usr/bin/python3", "-S", "-E", "-c", TARGET], ready="ready")
    with open(t.path("ready"), encoding="utf-8") as f:
        fixed = json.load(f)["fixed"]
    handle, seen = None, []
    if not t.control:
        handle = t.fsnap.start("watch", "-t", pid, "--every", "10ms", "--max-share", "50", "--keep", 0, "--name", "p",
                               "--json")
    for step in range(STEPS):
        said = told(t, pid, signal.SIGUSR1)
        if step == POKED:
            poke(pid, fixed)
            said = told(t, pid, signal.SIGUSR2)
        if handle:
            n = len(t.fsnap.lines(handle))
            t.until("images behind", lambda: len(t.fsnap.lines(handle)) > n + 2, timeout=60)
            seen.append((said, t.fsnap.lines(handle)[-1]))
    t.expect("what was poked is there", "poked...", said["fixed"][6][:8])
    end(pid)
    if not handle:
        return
    result = t.fsnap.finish(handle)
    t.expect("exit status", 0, result.status)
    pages = seen[0][1]["bytes"] // 4096
    t.expect_true(f"of what nobody wrote little is copied: {pages} pages", os.geteuid() != 0 or pages < 80)
    for step, (said, image) in enumerate(seen):
        t.restore(image["image"], "--changed", "warn")
        now = told(t, pid, signal.SIGUSR2)
        if step < 6:  # its pages of the file are those of now
            for name in ("own", "fixed"):
                said[name][3] = said[name][3] if said[name][3].startswith("first") else "changed." + said[name][3][8:]
        t.expect(f"step {step}", said, now)
        end(pid)


trial.main(body)
