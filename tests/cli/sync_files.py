#!/usr/bin/python3
"""Dirty pages of a tree's files are on the disk after a dump that was asked to write them back: those it wrote and those
it changed through a mapping; and stay where they are otherwise."""

import ctypes
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

SIZE = 4 << 20
PROGRAM = f"""
import mmap, os, signal
written = open("written", "r+b")
written.write(b"w" * {SIZE})
written.flush()
mapped = mmap.mmap(os.open("mapped", os.O_RDWR), 0)
mapped[:] = b"m" * {SIZE}
open("ready", "w").close()
signal.pause()
"""


def dirty(path):
    """Pages of a file that are not on the disk: cachestat(2); None: the kernel cannot say."""
    window, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    with open(path, "rb") as file:
        if ctypes.CDLL(None).syscall(ctypes.c_long(451), file.fileno(), window, found, 0):
            return None
    return found[1] + found[2]  # or on their way


def body(t):
    for name in ("written", "mapped"):
        with open(t.path(name), "wb") as file:
            file.write(bytes(SIZE))
            os.fsync(file.fileno())
    pid = t.start([sys.executable, "-c", PROGRAM], ready="ready")
    if dirty(t.path("written")) is None:
        t.note("skipped: this kernel has no cachestat(2)")
        sys.exit(77)
    before = {name: dirty(t.path(name)) for name in ("written", "mapped")}
    if not all(before.values()):
        t.note("skipped: the disk is so quick, or this file system has no dirty pages")
        sys.exit(77)
    t.dump(pid)
    t.dump(pid, "--sync-files")
    for name in ("written", "mapped"):
        t.expect(f"{name}: dirty pages after the dump ({before[name]} before)", 0, dirty(t.path(name)))
    os.kill(pid, 9)
    children.wait_gone([pid], 5)


trial.main(body)
