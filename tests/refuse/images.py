#!/usr/bin/python3
"""Images that are damaged or not for this machine: cut short anywhere, changed anywhere, of a
newer format, another architecture, with unknown features, or no image at all. Each is refused with
its own code before a process is made; an unknown optional feature is no obstacle."""

import ctypes
import os
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_IMAGE  # noqa: E402

PAGE = 4096
FORMAT, MACHINE, REQUIRED, OPTIONAL = 8, 12, 16, 24  # offsets in the superblock, store/README.md
DAMAGE = ("IMAGE_CORRUPT", "IMAGE_TRUNCATED", "IMAGE_FORMAT", "IMAGE_ARCH")


def seal(data):
    """Puts the superblock's checksum right, as somebody who means it would."""
    xxh = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
    xxh.restype, xxh.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    struct.pack_into("<Q", data, PAGE - 8, xxh(bytes(data[:PAGE - 8]), PAGE - 8))


def image_length(data):
    """What the newest commit says; behind it may be space kept for growth."""
    slots = [struct.unpack_from("<Q16sQQ", data, PAGE * n) for n in (1, 2)]
    return max(slots, key=lambda s: s[0])[3]


class Images:
    def __init__(self, t, good):
        self.t, self.path = t, t.path("changed.fsnap")
        with open(os.path.join(t.fsnap.store, "images", good + ".fsnap"), "rb") as f:
            self.good = f.read()

    def write(self, data):
        with open(self.path, "wb") as f:
            f.write(data)
        return self.path

    def refused(self, what, data, codes):
        path = self.write(data)
        before = set(os.listdir("/proc"))
        for command in (["verify"], ["restore", "-d"]):
            result = self.t.fsnap.run(*command, path, "--json")
            if not self.t.expect_error(result, EXIT_IMAGE, codes):
                self.t.note(f"  that was: {what}")
        children.reap()
        left = [p for p in set(os.listdir("/proc")) - before if p.isdigit()]
        if not self.t.expect(f"{what}: processes left", [], left):
            holder.stop(int(left[0]))


def used_offsets(images):
    """Where the image holds something: positions of bytes that are not zero."""
    data, size = images.good, image_length(images.good)
    return [i for i in range(0, size, max(1, size // 200000)) if data[i]]


def body(t):
    pid = holder.start(t, "nothing")
    # Damage to hints is no reason to refuse: tests/cli/heat.py.
    report = t.dump(pid, "--kill", "--heat", "never")
    images = Images(t, report["image"])
    good, size = images.good, image_length(images.good)
    t.expect("a copy is as good", 0, t.fsnap.run("verify", images.write(good)).status)

    for length in (0, 1, 7, 8, 100, PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE, size // 3, size // 2,
                   size - PAGE, size - 1):
        images.refused(f"cut to {length} bytes of {size}", good[:length],
                       ("IMAGE_TRUNCATED", "IMAGE_CORRUPT", "IMAGE_FORMAT"))
    offsets = used_offsets(images)
    for offset in [0, 9, 13, 40] + offsets[::max(1, len(offsets) // 40)]:
        if PAGE <= offset < 3 * PAGE:
            continue  # a commit slot: the other one may do
        data = bytearray(good)
        data[offset] ^= 0x40
        images.refused(f"bit changed at {offset}", data, DAMAGE)
    wiped = good[:PAGE] + bytes(2 * PAGE) + good[3 * PAGE:]
    images.refused("both commit slots wiped", wiped, DAMAGE)

    for what, offset, layout, value, code in (
            ("a newer format", FORMAT, "<I", 2, "IMAGE_FORMAT"),
            ("another architecture", MACHINE, "<I", 183, "IMAGE_ARCH"),
            ("an unknown required feature", REQUIRED, "<Q", 1 << 50, "IMAGE_FORMAT")):
        data = bytearray(good)
        struct.pack_into(layout, data, offset, value)
        seal(data)
        images.refused(what, data, code)
    images.refused("no image at all", b"#!/bin/sh\n" + bytes(100000), "IMAGE_FORMAT")
    images.refused("a text", b"hello\n" * 10, ("IMAGE_FORMAT", "IMAGE_TRUNCATED"))

    data = bytearray(good)
    struct.pack_into("<Q", data, OPTIONAL, 1 << 50)
    seal(data)
    t.expect("an unknown optional feature", 0, t.fsnap.run("verify", images.write(data)).status)
    shutil.copy(images.path, t.path("kept.fsnap"))
    t.restore(t.path("kept.fsnap"))
    holder.expect_well(t, pid, "restoring with an unknown optional feature")


trial.main(body)
