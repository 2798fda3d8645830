"""How times grow: with the memory of a process, with how much of it is overwritten while it is
dumped, with the number of processes. Each curve has a figure per point, and the machine's limit at
the same point."""

import os

import processes
import spread
from figures import Limit
from works import Restore

MIB = 1 << 20
GIB = 1 << 30
RATES_OF = 1024  # MiB of memory that is written to
COPIES = 5  # of its memory exist at once: the process, image, limits, and room


def largest():
    """MiB of the largest process that fits, a power of two."""
    with open("/proc/meminfo", encoding="ascii") as f:
        available = next(int(line.split()[1]) for line in f if line.startswith("MemAvailable"))
    size = 1
    while 2 * size * COPIES <= available >> 10:
        size *= 2
    return size


class Series:
    """One line of a picture: samples by point. A limit is drawn as one."""

    def __init__(self, name, unit, limit):
        self.name, self.unit, self.limit, self.points = name, unit, limit, {}

    def json(self):
        return {"name": self.name, "unit": self.unit, "limit": self.limit,
                "points": [{"at": at, **samples.json()} for at, samples in self.points.items()
                           if samples.values]}


class Curve(Restore):
    """What is done at each point, `rounds` times, fills in the series that declare() made."""
    share = 16
    axis = None  # what grows, and its unit
    points = ()
    peers_too = True

    def __init__(self, tool, place):
        self.series = []
        super().__init__(tool, place)

    def line(self, name, unit="ms", limit=None):
        self.series.append(Series(name, unit, False))
        for at in self.points:
            self.series[-1].points[at] = self.figure(f"{name}, {self.label(at)}", unit,
                                                     limit and limit[at])
        return self.series[-1].points

    def limit_line(self, name, unit="ms"):
        limits = {at: self.limit(f"{name}, {self.label(at)}", unit) for at in self.points}
        self.series.append(Series(name, unit, True))
        self.series[-1].points = {at: limit.samples for at, limit in limits.items()}
        return limits

    def label(self, at):
        return f"{at} {self.axis[1]}"

    def run(self, repetitions):
        for at in self.points:
            self.arguments = self.arguments_at(at)
            self.measure_at(at, max(3, repetitions // self.share))
            processes.end_all()
            self.tool.remove(trim=True)

    def json(self):
        return {**super().json(), "tool": self.tool.name,
                "curve": {"title": self.title, "axis": self.axis[0], "unit": self.axis[1],
                          "series": [x.json() for x in self.series]}}

    # --- what is done at a point -----------------------------------------------------

    def dump_rounds(self, pid, rounds, note):
        """The first time warms up; its space is there for the next."""
        for i in range(rounds + 1):
            timing = self.tool.dump(pid)
            if i:
                note(timing)
            self.tool.remove()

    def restore_rounds(self, pid, rounds, note):
        self.tool.dump(pid, kill=True)
        for i in range(rounds + 1):
            timing, first = self.restore()
            if i:
                note(timing, first)

    def note_dump(self, at):
        def note(timing):
            self.dumps[at].add_ns(timing.ns)
            if timing.report:
                self.frozen[at].add_ns(timing.report["frozen_us"] * 1000)
        return note


class ByMemory(Curve):
    """As it is by itself: large ones are dumped while they run, and run while they are restored."""
    name, title = "curve-memory", "one process, by its memory"
    axis = ("memory", "MiB")

    def how(self):
        return self.tool.awaited

    def declare(self):
        top = largest()
        self.points = tuple(x for x in (1, 4, 16, 64, 256, 1024, 4096, 16384) if x < top) + (top,)
        self.warm = self.limit_line("memcpy between warm pages")
        self.fresh = self.limit_line("memcpy into fresh pages")
        self.dumps = self.line("dump", limit=self.warm)
        self.frozen = self.line("frozen", limit=self.warm)
        self.first = self.line("restore to the first instruction")
        self.resident = self.line("restore to full residence", limit=self.fresh)
        self.image = self.line("image", "MiB")

    def arguments_at(self, at):
        return ("--spin", "--memory", str(at))

    def measure_at(self, at, rounds):
        pid = self.start()
        self.dump_rounds(pid, rounds, self.note_dump(at))
        self.restore_rounds(pid, rounds, lambda timing, first: self.note_restore(at, timing, first))
        self.measure_limits(at, rounds)

    def note_restore(self, at, timing, first):
        self.first[at].add_ns(first)
        report = timing.report or {}
        if report.get("resident_us"):
            self.resident[at].add_ns(report["resident_us"] * 1000)
        elif timing.end:
            self.resident[at].add_ns(max(timing.ns, first))
        if hasattr(self.tool, "image"):
            self.image[at].values.append(os.stat(self.tool.image).st_blocks * 512 / MIB)

    def measure_limits(self, at, rounds):
        for limit, how in ((self.warm[at], "copy-warm"), (self.fresh[at], "copy-fresh")):
            seen = self.copy_speed(how, at * MIB, rounds)
            limit.samples.values += [at * MIB / GIB / speed * 1000 for speed in seen]

    def copy_speed(self, how, size, rounds):
        speed = Limit("", "GiB/s")
        self.measure_memory(speed, how, size, rounds)
        return speed.samples.values


class ByWriteRate(Curve):
    name, title = "curve-writes", "a process of 1 GiB, by how much it writes"
    axis = ("overwritten", "MiB/s")
    points = (0, 10, 100, 1000)

    def declare(self):
        self.dumps = self.line("dump")
        self.frozen = self.line("frozen")

    def arguments_at(self, at):
        return ("--memory", str(RATES_OF), "--write", str(at))

    def measure_at(self, at, rounds):
        self.dump_rounds(self.start(), rounds, self.note_dump(at))


class ByProcesses(Curve):
    name, title = "curve-processes", "a server, by the number of its processes"
    axis = ("processes", "")
    points = (2, 4, 16, 64, 256)

    def declare(self):
        self.spawn = self.limit_line("fork+exec of true, as often")
        self.dumps = self.line("dump", limit=self.spawn)
        self.frozen = self.line("frozen", limit=self.spawn)
        self.first = self.line("restore to the root's first instruction", limit=self.spawn)

    def label(self, at):
        return f"{at} processes"

    def arguments_at(self, at):
        return ("--spin", "--children", str(at - 1))

    def measure_at(self, at, rounds):
        pid = self.start()
        self.dump_rounds(pid, rounds, self.note_dump(at))
        self.restore_rounds(pid, rounds, lambda timing, first: self.first[at].add_ns(first))
        for _ in range(rounds):
            self.spawn[at].samples.add_ns(self.tool.time(self.place.true).ns * at)


def table(works):
    """Lines of text: one table per curve, a row per point, a column per line of the picture."""
    lines = []
    for work in works:
        rows = [(f"{work.axis[0]}, {work.axis[1]}".rstrip(", "),
                 *(f"[{x.name}]" if x.limit else x.name for x in work.series))]
        rows += [(str(at), *(x.points[at].text() if x.points[at].values else "" for x in work.series))
                 for at in work.points]
        lines += [f"{work.title} (limits in brackets)", *spread.table(rows), ""]
    return lines


def all_works(fsnap, peers, place):
    return [kind(tool, place) for kind in (ByMemory, ByWriteRate, ByProcesses)
            for tool in (fsnap, *peers)]
