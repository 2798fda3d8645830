"""A reader that is moved: dumped and killed, a pause for the way, its file out of the page cache,
restored. What the others of bench/warm do differently is which file, which pattern, and when."""

import os
import signal
import time

import processes
import slow
from slices import Slices

# How the page cache comes back: name -> (what `fsnap prefetch` brings while the image is on its
# way, what the restore brings beside the running tree).
MODES = {"none": (None, "off"), "all": ("all", "all"), "hot": ("hot", "hot"),
         "late": (None, "hot")}


class Moved:
    """What one move was like. Moments are ns of CLOCK_MONOTONIC."""

    def __init__(self):
        self.dumped = self.restoring = self.restored = None
        self.dump_report = self.restore_report = None
        self.image_s = 0.0  # seconds that the image is on its way over the network
        self.device_before = 0  # bytes the device had given when the files had left the cache


class Mover:
    def __init__(self, fsnap, place, storage, options):
        self.fsnap, self.place, self.storage, self.options = fsnap, place, storage, options

    def slices(self, seconds):
        return Slices(os.path.join(self.place.work, "slices"), seconds)

    def start(self, slices, pattern, block, *files):
        return processes.spawn([self.place.program("reader"), slices.path, pattern, str(block),
                                *files], os.path.join(self.place.work, "reader.out"))

    def move(self, pid, mode, files, between=lambda: None, wait=True):
        """files: what leaves the page cache. `between` is called just before the restore. Without
        `wait` there is no pause, for which the caller answers."""
        ahead, beside = MODES[mode]
        moved = Moved()
        moved.dumped = time.monotonic_ns()
        moved.dump_report = self.fsnap.reported("dump", "-t", str(pid), "--name", "bench", "--kill",
                                                "--heat", "always").report
        for path in files:
            slow.forget(path)
        moved.device_before = self.storage.read_bytes()
        prefetch = self.ahead(ahead) if ahead else None
        moved.image_s = os.stat(self.fsnap.image).st_blocks * 512 / slow.RATES["network"][0]
        if wait:
            self.sleep_until(moved.dumped + int(1e9 * (self.options.migration + moved.image_s)))
        if prefetch:
            self.end(prefetch)
        between()
        moved.restoring = time.monotonic_ns()
        moved.restore_report = self.fsnap.reported("restore", "bench", "-d", "--prefetch",
                                                   beside).report
        moved.restored = time.monotonic_ns()
        return moved

    def ahead(self, which):
        return processes.spawn([self.fsnap.command, "prefetch", "bench", "--prefetch", which,
                                "--store", self.fsnap.store, "--json"],
                               os.path.join(self.place.work, "prefetch.out"))

    @staticmethod
    def end(pid):
        """What it has not done by now, the restore does beside the tree."""
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        processes.wait(pid)

    @staticmethod
    def sleep_until(moment):
        time.sleep(max(0, (moment - time.monotonic_ns()) / 1e9))

    def clear(self, slices):
        """The reader has done its part; its image and its helpers go with it."""
        processes.end_all()
        if os.path.exists(self.fsnap.store):
            self.fsnap.remove()
        slices.close()
