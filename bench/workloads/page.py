"""What a workload counts: one per answer, per slice of time, in the page it shares with bench/warm
(lib/slices.py knows the same)."""

import mmap
import time

SLICE_NS = 10_000_000
HEAD = 24


class Page:
    def __init__(self, path):
        with open(path, "r+b") as f:
            self.words = memoryview(mmap.mmap(f.fileno(), 0)).cast("Q")
        self.start, self.count = self.words[0], self.words[2]

    def begun(self):
        """Has bench/warm said so?"""
        return self.words[1] != 0

    def add(self, n=1):
        at = (time.monotonic_ns() - self.start) // SLICE_NS
        if at < self.count:
            self.words[HEAD // 8 + at] += n

