"""A large program whose image lies on slow storage: how long until the first request is answered, with
the record of what it touches and without; how long until all of it is there, past the page cache and
through it. Part of bench/warm."""

import os
import statistics
import time

import processes
import slow
import spread
import tools
from page import Page
from warmth import progress, times

MIB = 1 << 20
MODES = ("plain", "recorded")


def pager_is_done():
    """It has ended; who reaps it does not matter here."""
    pid = processes.named("fsnap-pager")
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Stored:
    """The image is what lies on the slow storage."""

    def __init__(self, mover):
        self.mover, self.options = mover, mover.options
        self.fsnap = tools.Fsnap(mover.place.work, mover.place.programs, mover.fsnap.command,
                                 mover.storage.path("store"))
        self.page = Page(os.path.join(mover.place.work, "page"))

    def dump(self):
        self.page.clear()
        pid = processes.spawn([self.mover.place.program("specimen"), self.page.path, "--memory",
                               str(self.options.memory // MIB), "--requests", str(self.options.set // MIB)])
        processes.wait_until(lambda: self.page.ready, "the specimen", 120)
        self.fsnap.dump(pid, "--no-live", kill=True)


class Eager(Stored):
    """A program of --memory, all of which is brought from slow storage before it runs: past the page cache, and
    through it."""
    name = "eager"

    def run(self):
        self.dump()
        self.found = {"direct": [], "page cache": []}
        for n in range(self.options.runs):
            for way, values in self.found.items():
                values.append(self.once(way))
            progress(f"eager {n + 1}/{self.options.runs}: " +
                     ", ".join(f"{way} {values[-1]:.2f} s" for way, values in self.found.items()))
        self.fsnap.remove(trim=True)

    def once(self, way):
        slow.forget(self.fsnap.image)
        if way != "direct":
            os.environ["FSNAP_NO_DIRECT"] = "1"
        timing = self.fsnap.restore(*self.fsnap.eager)
        os.environ.pop("FSNAP_NO_DIRECT", None)
        processes.end_all()
        if (way == "direct") != (timing.report["direct_bytes"] > 0):
            raise RuntimeError(f"{way}: {timing.report}")
        return timing.ns / 1e9

    def lines(self):
        rows = [("all of it there after", "median", "range", "MiB/s")]
        for way, values in self.found.items():
            median = statistics.median(values)
            rows.append((way, f"{median:.2f} s", f"{min(values):.2f}-{max(values):.2f}",
                         f"{self.options.memory / MIB / median:.0f}"))
        return spread.table(rows)

    def json(self):
        return {way: spread.summary(values) for way, values in self.found.items()}


class Recorded(Stored):
    """A program of --memory whose requests read --set of it, here and there, restored from slow storage: the
    first request after a streamed restore, with a record of an earlier one and without."""
    name = "recorded"

    def run(self):
        self.dump()
        self.record = self.fsnap.image.replace(".fsnap", ".record")
        self.found = {mode: {"answered": [], "resident": [], "device": []} for mode in MODES}
        for mode in MODES:
            if mode == "recorded":
                # As long as the first request takes without: each page it touches brings its block.
                self.restored("--record", str(int(2 + 1.5 * max(self.found["plain"]["answered"]))))
            for n in range(self.options.runs):
                self.once(mode)
                progress(f"recorded {n + 1}/{self.options.runs}: {mode}: answered after "
                         f"{self.found[mode]['answered'][-1]:.2f} s")
        self.fsnap.remove(trim=True)

    def restored(self, *options):
        """(seconds until the request is answered, until all is there, bytes that the device gave until the answer)"""
        slow.forget(self.fsnap.image)
        before, began = self.mover.storage.read_bytes(), time.monotonic_ns()
        self.page.ask()
        self.fsnap.reported("restore", "bench", "-d", "--memory", "stream", *options)
        answered = processes.wait_until(self.page.answered_at, "the answer", 600)
        device = self.mover.storage.read_bytes() - before
        processes.wait_until(pager_is_done, "the rest of it", 600)
        ended = time.monotonic_ns()
        processes.end_all()
        return (answered - began) / 1e9, (ended - began) / 1e9, device

    def once(self, mode):
        if mode == "plain" and os.path.exists(self.record):
            os.unlink(self.record)
        for name, value in zip(("answered", "resident", "device"), self.restored()):
            self.found[mode][name].append(value)

    def lines(self):
        rows = [("first request answered after", "median", "range", "device", "all there after")]
        for mode in MODES:
            found = self.found[mode]
            rows.append((mode, f"{statistics.median(found['answered']):.2f} s",
                         f"{min(found['answered']):.2f}-{max(found['answered']):.2f}",
                         f"{statistics.median(found['device']) / MIB:.0f} MiB",
                         f"{statistics.median(found['resident']):.1f} s"))
        plain, recorded = (self.found[mode]["answered"] for mode in MODES)
        return spread.table(rows + [("sooner with it", times(recorded, plain), "", "", ""),
                                    ("promised", "≥ 5 x", "", "", "")])

    def json(self):
        return {mode: {name: spread.summary(values) for name, values in found.items()}
                for mode, found in self.found.items()}
