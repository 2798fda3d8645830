"""What reader.c counts: bytes per slice of 10 ms; its layout is reader.c's."""

import mmap
import os
import statistics
import struct
import time

SLICE_NS = 10_000_000
HEAD = 24
WINDOW = 10  # slices that are looked at together where a speed is wanted


class Slices:
    def __init__(self, path, seconds):
        self.path, self.count = path, int(seconds * 1e9 / SLICE_NS) + 1
        with open(path, "w+b") as f:
            f.truncate(-(-(HEAD + 8 * self.count) // mmap.PAGESIZE) * mmap.PAGESIZE)
            self.memory = mmap.mmap(f.fileno(), 0)
        self.start = time.monotonic_ns()
        struct.pack_into("QQQ", self.memory, 0, self.start, 0, self.count)

    def close(self):
        self.memory.close()
        os.unlink(self.path)

    def read_other(self):
        self.begin(True)

    def begin(self, whether):
        """A word to whom we count for: what it means is his."""
        struct.pack_into("Q", self.memory, 8, int(whether))

    def bytes(self, start=None, end=None):
        """Per slice, between two moments in ns of CLOCK_MONOTONIC."""
        first = 0 if start is None else self.number(start)
        last = self.count if end is None else self.number(end)
        last = max(first, min(last, self.count))
        return struct.unpack_from(f"{last - first}Q", self.memory, HEAD + 8 * first)

    def number(self, moment):
        return (moment - self.start) // SLICE_NS

    def sum(self, start=None, end=None):
        return sum(self.bytes(start, end))

    def speed(self, start, end):
        """Bytes a second: the median of windows, so that a busy moment does not count."""
        found = self.bytes(start, end)
        windows = [sum(found[i:i + WINDOW]) for i in range(0, len(found) - WINDOW + 1, WINDOW)]
        if not windows:
            raise RuntimeError("too short a time to tell the reader's speed")
        return statistics.median(windows) * 1e9 / SLICE_NS / WINDOW

    def back_at(self, start, end, speed):
        """Seconds from `start` to the first window in which it was as fast; None: never."""
        found = self.bytes(start, end)
        need = speed * SLICE_NS * WINDOW / 1e9
        for i in range(len(found) - WINDOW + 1):
            if sum(found[i:i + WINDOW]) >= need:
                return i * SLICE_NS / 1e9
        return None

    def first(self, start, end):
        """Seconds from `start` to the first slice in which there is anything; None: none."""
        for i, found in enumerate(self.bytes(start, end)):
            if found:
                return i * SLICE_NS / 1e9
        return None
