"""The experiments of bench/warm. Each gives lines of text, and all its samples for --json."""

import os
import random
import statistics
import sys
import time

import processes
import slow
import spread
from figures import number

MIB = 1 << 20
GIB = 1 << 30
SETTLE = 1.5  # seconds of warm reading before a move, to know the warm speed by


def progress(text):
    print(text, file=sys.stderr, flush=True)


def times(values, whole, digits=2):
    """How many times the median of `values` goes into that of `whole`: "2.20 x"."""
    low = statistics.median(values)
    return f"{statistics.median(whole) / low:.{digits}f} x" if low else "-"


class Published:
    """Data read in a fixed time by a reader that is moved at a random moment at which it has
    all of it in the cache (--anywhere: at any), once per mode and moment, the modes in turns, so a
    busy moment falls on all of them. Time in which nothing
    changes is not waited for (README.md); --unabridged does."""
    name = "moved"
    steady = 1.0  # seconds of full speed by which the rest is known

    def __init__(self, mover):
        self.mover, self.options = mover, mover.options

    def run(self):
        path = self.mover.storage.make_file("file", self.options.size)
        chance = random.Random(self.options.seed)
        modes = self.options.modes
        once = self.once_in_full if self.options.unabridged else self.once
        if not self.options.unabridged:
            self.begin_cold(path)
        self.read = {mode: [] for mode in modes}
        self.moments = []
        for n in range(self.options.runs):
            self.moments.append(chance.uniform(*self.span()))
            for mode in modes:
                self.read[mode].append(once(path, mode, self.moments[-1]) / GIB)
            progress(f"moved {n + 1}/{self.options.runs}: at {self.moments[-1]:.1f} s, GiB read: " +
                     ", ".join(f"{m} {self.read[m][-1]:.2f}" for m in modes))
        os.unlink(path)

    def span(self):
        """When it may be moved: when it has its file in the cache, and so early that the move and a
        pass over slow storage still fit. --anywhere: at any moment of the fixed time."""
        one_pass = self.options.size / slow.rate_of(self.options.rate)[0]
        first, last = one_pass, self.options.seconds - self.options.migration - one_pass
        return (0, self.options.seconds) if self.options.anywhere or first >= last else (first, last)

    def once_in_full(self, path, mode, moment):
        slow.forget(path)
        slices = self.mover.slices(self.options.seconds)
        pid = self.reader(slices, path)
        self.mover.sleep_until(slices.start + int(moment * 1e9))
        self.mover.move(pid, mode, [path])
        self.mover.sleep_until(slices.start + int(self.options.seconds * 1e9))
        read = slices.sum()
        self.mover.clear(slices)
        return read

    def reader(self, slices, path):
        return self.mover.start(slices, self.options.pattern, self.options.block, path)

    def begin_cold(self, path):
        """How every run begins: seconds from a cold cache to full speed, and bytes read in them."""
        self.warm = self.warm_speed(path)
        slow.forget(path)
        slices = self.mover.slices(self.options.seconds + 60)
        self.reader(slices, path)
        self.cold_s = self.until_fast(slices, slices.start, self.options.seconds + 50, self.warm)
        self.cold_bytes = slices.sum(slices.start, slices.start + int(self.cold_s * 1e9))
        self.mover.clear(slices)

    def warm_speed(self, path):
        self.mover.storage.fill(path)
        slices = self.mover.slices(60)
        self.reader(slices, path)
        speed = self.fast(slices)
        self.mover.clear(slices)
        return speed

    def fast(self, slices):
        time.sleep(SETTLE)
        now = time.monotonic_ns()
        return slices.speed(now - int(self.steady * 1e9), now)

    def until_fast(self, slices, since, seconds, warm):
        """Seconds from `since` until it is at nine tenths of that speed; all of them, if never."""
        back = None
        while back is None and time.monotonic_ns() < since + int(seconds * 1e9):
            time.sleep(0.05)
            back = slices.back_at(since, time.monotonic_ns(), 0.9 * warm)
        return seconds if back is None else back

    def once(self, path, mode, moment):
        """The same as in full, but for the time in which the reader goes on as it did: before the
        move, once it has read everything; in the pause, if nothing is prefetched; after the move,
        when it is back at its speed. What it reads then is its speed times that time."""
        cold = moment < self.cold_s
        slices = self.mover.slices(2 * self.options.seconds + 120)
        if cold:
            slow.forget(path)
        else:
            self.mover.storage.fill(path)
        pid = self.reader(slices, path)
        if cold:
            self.mover.sleep_until(slices.start + int(moment * 1e9))
            read, warm = slices.sum(slices.start, slices.start + int(moment * 1e9)), self.warm
        else:
            warm = self.fast(slices)
            read = self.cold_bytes + (moment - self.cold_s) * warm
        left = self.options.seconds - moment - self.options.migration
        if left > 0:
            moved = self.mover.move(pid, mode, [path], wait=mode != "none")
            read += self.after(slices, moved.restoring, left - moved.image_s, warm)
        self.mover.clear(slices)
        return read

    def after(self, slices, since, seconds, warm):
        """Bytes in so many seconds after the move."""
        back = self.until_fast(slices, since, seconds, warm)
        measured = min(seconds, back + self.steady)
        if measured <= 0:
            return 0
        self.mover.sleep_until(since + int(measured * 1e9))
        end = since + int(measured * 1e9)
        read = slices.sum(since, end)
        if measured < seconds:
            read += slices.speed(end - int(self.steady * 1e9), end) * (seconds - measured)
        return read

    def lines(self):
        none = self.read.get("none")
        rows = [("GiB read in a fixed time", "mean", "median", "median ÷ none", "mean ÷ none")]
        for mode, read in self.read.items():
            mean = statistics.mean(read)
            rows.append((mode, number(mean), number(statistics.median(read)),
                         times(none, read) if none else "",
                         f"{mean / statistics.mean(none):.2f} x" if none and any(none) else ""))
        return spread.histogram(self.read, "GiB") + [""] + spread.table(rows)

    def json(self):
        return {"moments": self.moments, **{m: spread.summary(v) for m, v in self.read.items()}}


class Returning:
    """How soon a program is as fast as before the move, and what the device had to give. Those who
    derive from it say what program that is."""
    name = None
    unit = "bytes"

    def __init__(self, mover):
        self.mover, self.options = mover, mover.options

    def prepare(self):
        """Makes what it reads; sets self.files, which leave the page cache, and self.hot, bytes of
        them that it needs."""
        raise NotImplementedError

    def start(self, slices):
        """Returns its PID, or that of the root of its tree."""
        raise NotImplementedError

    def before(self, slices, pid):
        """Until it is warm."""
        time.sleep(SETTLE)

    def warm(self, slices):
        now = time.monotonic_ns()
        return slices.speed(now - 1_000_000_000, now)

    def between(self, slices):
        """After the dump, before the restore."""

    def back(self, slices, since, warm):
        """Seconds from then until it was back, None: not yet."""
        return slices.back_at(since, time.monotonic_ns(), 0.9 * warm)

    def run(self):
        self.prepare()
        self.samples = {mode: {"back_s": [], "device": [], "lost_s": []} for mode in self.options.modes}
        self.never = dict.fromkeys(self.options.modes, 0)
        for n in range(self.options.runs):
            for mode in self.options.modes:
                self.once(mode)
            progress(f"{self.name} {n + 1}/{self.options.runs}: " + ", ".join(
                f"{m} {self.samples[m]['back_s'][-1]:.2f} s" for m in self.options.modes))
        self.clear()

    def clear(self):
        for path in self.files:
            os.unlink(path)

    def once(self, mode):
        for path in self.files:
            self.mover.storage.fill(path)
        slices = self.mover.slices(2 * SETTLE + self.options.migration + self.options.seconds + 60)
        pid = self.start(slices)
        self.before(slices, pid)
        warm = self.warm(slices)
        moved = self.mover.move(pid, mode, self.files, lambda: self.between(slices))
        end = moved.restoring + int(self.options.seconds * 1e9)
        back = None
        while back is None and time.monotonic_ns() < end:
            time.sleep(0.05)
            back = self.back(slices, moved.restoring, warm)
        samples = self.samples[mode]
        # Who never came back within the time counts as having come back at its end.
        samples["back_s"].append(self.options.seconds if back is None else back)
        self.never[mode] += back is None
        samples["device"].append((self.mover.storage.read_bytes() - moved.device_before) / self.hot)
        # What it did not get, in seconds of warm work.
        until = min(time.monotonic_ns(), end)
        samples["lost_s"].append((until - moved.restoring) / 1e9 -
                                 slices.sum(moved.restoring, until) / warm)
        self.mover.clear(slices)

    def lines(self):
        none = self.samples.get("none")
        rows = [(f"{self.name}: back at 90 % of the warm speed", "median", "min", "max", "sooner than none",
                 "device ÷ hot bytes", "warm seconds lost", "never")]
        for mode, s in self.samples.items():
            rows.append((mode, f"{statistics.median(s['back_s']):.2f} s", f"{min(s['back_s']):.2f}",
                         f"{max(s['back_s']):.2f}",
                         times(s["back_s"], none["back_s"], 1) if none else "",
                         f"{statistics.median(s['device']):.2f}",
                         f"{statistics.median(s['lost_s']):.2f}", str(self.never[mode])))
        return spread.table(rows)

    def json(self):
        return {m: {k: spread.summary(v) for k, v in s.items()} | {"never": self.never[m]}
                for m, s in self.samples.items()}


class Skewed(Returning):
    """How soon a reader of the hot tenth is as fast as before, and what the device had to give."""
    name = "skewed"

    def prepare(self):
        self.files = [self.mover.storage.make_file("skewed", self.options.large)]
        self.hot = self.options.large // (160 * MIB) * 16 * MIB

    def start(self, slices):
        return self.mover.start(slices, "skewed", self.options.fine, self.files[0])


class Steal:
    """A restored program that reads a file nobody prefetches: how much it gets in the time it
    would take to prefetch the other one."""
    name = "steal"

    def __init__(self, mover):
        self.mover, self.options = mover, mover.options

    def run(self):
        self.hot = self.mover.storage.make_file("hot", self.options.size)
        self.other = self.mover.storage.make_file("other", 2 * self.options.size)
        self.seconds = self.options.size / slow.rate_of(self.options.rate)[0]
        self.read, self.device, self.parts = {"none": [], "late": []}, {"none": [], "late": []}, []
        for n in range(self.options.runs):
            # Which comes first changes, so a drift falls on both.
            for mode in ("none", "late") if n % 2 else ("late", "none"):
                self.once(mode)
            self.parts.append(self.read["late"][-1] / self.read["none"][-1])
            progress(f"steal {n + 1}/{self.options.runs}: {self.parts[-1]:.2f} of the speed alone")
        os.unlink(self.hot)
        os.unlink(self.other)

    def once(self, mode):
        self.mover.storage.fill(self.hot)
        slow.forget(self.other)
        slices = self.mover.slices(60 + self.options.migration + self.seconds)
        pid = self.mover.start(slices, "sequential", self.options.block, self.hot, self.other)
        time.sleep(SETTLE)
        moved = self.mover.move(pid, mode, [self.hot, self.other], slices.read_other)
        end = moved.restored + int(self.seconds * 1e9)
        self.mover.sleep_until(end)
        self.read[mode].append(slices.sum(moved.restored, end) / MIB)
        self.device[mode].append((self.mover.storage.read_bytes() - moved.device_before) / MIB)
        self.mover.clear(slices)

    def lines(self):
        rows = [("its own reading", "MiB median", "device MiB")]
        for mode, read in self.read.items():
            rows.append(("alone" if mode == "none" else "beside prefetching",
                         number(statistics.median(read)), number(statistics.median(self.device[mode]))))
        stolen = 1 - statistics.median(self.parts)
        return spread.table(rows) + [f"stolen: {stolen:.1%} (median of pairs; promised: ≤ 10 %)"]

    def json(self):
        return {"alone_mib": spread.summary(self.read["none"]),
                "beside_mib": spread.summary(self.read["late"]), "part": spread.summary(self.parts)}


class Overhead:
    """A reader whose file is all in the page cache, watched and not watched in turns. Each turn in
    which it is watched is compared with the mean of the two beside it, by bytes a second and by
    bytes a second of its own processor time, to which a busy machine does less."""
    name = "overhead"
    turn = 0.5
    settle = 0.2  # seconds: a new watch first spends what it may on a burst

    def __init__(self, mover):
        self.mover, self.options = mover, mover.options

    def run(self):
        path = self.mover.storage.make_file("cached", min(self.options.size, 256 * MIB))
        self.parts = {}
        for block in (64 << 10, 4 << 10):
            slices = self.mover.slices(20 + self.options.runs * 4 * (self.turn + self.settle + 0.5))
            pid = self.mover.start(slices, "sequential", block, path)
            time.sleep(0.5)
            self.parts[block] = self.pairs(slices, pid)
            self.mover.clear(slices)
            progress(f"overhead, {block >> 10} KiB: {1 - statistics.median(self.parts[block]['wall']):.2%}")
        os.unlink(path)

    def pairs(self, slices, pid):
        parts = {"wall": [], "own": [], "keeper": []}
        before = self.speed(slices, pid)
        for _ in range(self.options.runs):
            self.fsnap(pid, "--watch")
            watched = self.speed(slices, pid)
            self.fsnap(pid, "--unwatch")
            after = self.speed(slices, pid)
            for name in ("wall", "own"):
                parts[name].append(2 * watched[name] / (before[name] + after[name]))
            parts["keeper"].append(1 - watched["keeper"])
            before = after
        return parts

    def fsnap(self, pid, what):
        self.mover.fsnap.time(self.mover.fsnap.command, "heat", "-t", str(pid), what)

    def speed(self, slices, pid):
        time.sleep(self.settle)
        keeper = processes.named("fsnap-watch")
        start, own, kept = time.monotonic_ns(), processes.ran_ns(pid), processes.ran_ns(keeper)
        time.sleep(self.turn)
        end, own = time.monotonic_ns(), processes.ran_ns(pid) - own
        read = slices.sum(start, end)
        return {"wall": read / (end - start), "own": read / own,
                "keeper": (processes.ran_ns(keeper) - kept) / (end - start)}

    def lines(self):
        rows = [("slower while watched", "median", "quartiles", "by its own processor time", "the keeper's")]
        for block, parts in self.parts.items():
            low, _, high = statistics.quantiles(parts["wall"], n=4) if self.options.runs > 1 else (0, 0, 0)
            rows.append((f"reads of {block >> 10} KiB", f"{1 - statistics.median(parts['wall']):.2%}",
                         f"{1 - high:.2%} to {1 - low:.2%}", f"{1 - statistics.median(parts['own']):.2%}",
                         f"{1 - statistics.median(parts['keeper']):.2%}"))
        return spread.table(rows + [("promised", "≤ 2 %", "", "", "")])

    def json(self):
        return {f"{block >> 10}k": {name: spread.summary(values) for name, values in parts.items()}
                for block, parts in self.parts.items()}


class Collect:
    """How long a dump takes to find out what is cached, and whether the tree is longer frozen for
    it. The file is a hole: its pages are in the page cache as others are, but cost no storage."""
    name = "collect"

    def __init__(self, mover):
        self.mover, self.options = mover, mover.options

    def run(self):
        path = self.mover.storage.path("hole")
        with open(path, "wb") as f:
            f.truncate(self.options.cached)
        self.mover.storage.fill(path)
        slices = self.mover.slices(1)
        pid = self.mover.start(slices, "sequential", 4 << 10, path)
        time.sleep(0.5)
        self.heat, self.frozen = [], {"always": [], "never": []}
        for _ in range(self.options.runs):
            for heat, frozen in self.frozen.items():
                report = self.mover.fsnap.reported("dump", "-t", str(pid), "--name", "bench",
                                                   "--heat", heat).report
                self.mover.fsnap.remove()
                frozen.append(report["frozen_us"] / 1e3)
                if heat == "always":
                    self.heat.append(report["heat_us"] / 1e3)
        self.bytes = os.stat(path).st_size
        self.mover.clear(slices)
        os.unlink(path)

    def lines(self):
        rows = [(f"{self.bytes / GIB:.1f} GiB cached", "median", "min", "max")]
        for name, values in (("finding out, tree running", self.heat),
                             ("frozen, with heat", self.frozen["always"]),
                             ("frozen, without", self.frozen["never"])):
            rows.append((name, *(f"{x:.2f} ms" for x in (statistics.median(values), min(values),
                                                         max(values)))))
        return spread.table(rows)

    def json(self):
        return {"bytes": self.bytes, "heat_ms": spread.summary(self.heat),
                **{f"frozen_{k}_ms": spread.summary(v) for k, v in self.frozen.items()}}


EXPERIMENTS = (Published, Skewed, Steal, Overhead, Collect)
