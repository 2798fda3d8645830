"""What is measured. A work sets its specimen up, is repeated, and fills in its figures; the limit
beside them is measured between the repetitions, so that a busy moment falls on both."""

import os
import shutil
import signal
import time

import processes
from figures import Figure, Limit, Samples, at_least, at_most
from page import Page

MEMORY = 1 << 30
CHILDREN = 63


class Work:
    """One line or several of the table. `name` selects it; `share` is how much rarer than a tiny
    process it is repeated."""
    name = title = None
    share = 1
    warm = 6 << 30  # bytes: specimen, image, restored memory and both sides of a memcpy, with room to spare
    arguments = ()
    peers_too = False

    def __init__(self, tool, place, dynamic=False):
        self.tool, self.place = tool, place
        self.dynamic = dynamic or getattr(tool, "dynamic", False)
        if self.dynamic and dynamic:
            self.name, self.title = self.name + "-dynamic", self.title + ", dynamic"
        if tool.name != "fsnap":
            self.name, self.title = f"{tool.name}-{self.name}", f"{tool.name}: {self.title}"
        self.figures, self.limits, self.phases = [], [], {}
        self.busy = 0  # what part of the machine others used just before
        self.declare()

    def figure(self, *arguments, **named):
        self.figures.append(Figure(*arguments, **named))
        return self.figures[-1].samples

    def limit(self, name, unit):
        self.limits.append(Limit(name, unit))
        return self.limits[-1]

    def note_phases(self, timing):
        """What the tool says its own time went into."""
        for key, value in (timing.report or {}).items():
            phase = key.removesuffix("_us")
            if phase != key and phase not in ("total", "frozen", "first_instruction"):
                self.phases.setdefault(phase, Samples("ms")).add_ns(value * 1000)

    def goal(self, goal):
        """Promises are fsnap's, not its peers'."""
        return goal if self.tool.name == "fsnap" else None

    def start(self):
        self.page = Page(os.path.join(self.place.work, "page"))
        self.page.clear()
        program = self.place.program("specimen-dynamic" if self.dynamic else "specimen")
        pid = self.tool.start([program, self.page.path, *self.arguments])
        processes.wait_until(lambda: self.page.ready, "the specimen")
        time.sleep(0.05)  # its children are on their way into accept(2)
        return pid

    def run(self, repetitions):
        """The first time warms up and does not count."""
        self.set_up()
        for measured in [False] + [True] * max(3, repetitions // self.share):
            self.measure(measured)
        self.tear_down()

    def set_up(self):
        self.pid = self.start()

    def tear_down(self):
        processes.end_all()
        self.tool.remove(trim=True)

    def json(self):
        return {"name": self.name, "others_busy": self.busy,
                "figures": [x.json() for x in self.figures if x.samples.values],
                "limits": [x.json() for x in self.limits if x.samples.values],
                "phases": {name: x.json() for name, x in self.phases.items()}}

    # --- limits: each adds samples to a Limit ---

    def measure_spawn(self, limit):
        limit.samples.add_ns(self.tool.time(self.place.true).ns)

    def measure_memory(self, limit, *arguments):
        for line in processes.output_of([self.place.program("limits"), *map(str, arguments)],
                                        os.path.join(self.place.work, "limits")).splitlines():
            amount, ns = map(int, line.split())
            limit.samples.add_ns(ns, amount)


class DumpTiny(Work):
    name, title = "dump-tiny", "dump of a tiny process"
    peers_too = True

    def declare(self):
        self.spawn = self.limit("fork+exec of true", "ms")
        self.command = self.figure("start to finish", "ms", self.spawn, self.goal(at_most(4)))
        self.frozen = self.figure("frozen", "ms", goal=self.goal(at_most(0.5, "ms")))

    def measure(self, count):
        timing = self.tool.dump(self.pid)
        self.tool.remove()
        if not count:
            return
        self.note_phases(timing)
        self.measure_spawn(self.spawn)
        self.command.add_ns(timing.ns)
        if timing.report:
            self.frozen.add_ns(timing.report["frozen_us"] * 1000)


class Frozen(Work):
    """Not what fsnap says of itself: what the frozen one sees."""
    name, title = "frozen", "frozen time, tiny process"
    arguments = ("--spin",)
    peers_too = True

    def declare(self):
        self.seen = self.figure("seen by itself", "ms")
        self.said = self.figure("reported", "ms")

    def measure(self, count):
        timing = self.tool.dump(self.pid)
        self.tool.remove()
        if not count:
            return
        self.note_phases(timing)
        time.sleep(0.005)  # let go by fsnap, it may still wait for a processor
        self.seen.add_ns(self.page.longest_gap(timing.start, timing.end))
        if timing.report:
            self.said.add_ns(timing.report["frozen_us"] * 1000)


class Restore(Work):
    """Dumped and killed once, restored again and again; each ends before the next begins."""
    arguments = ("--spin",)

    def set_up(self):
        self.tool.dump(self.start(), kill=True)

    def how(self):
        """How memory arrives: options of the tool."""
        return self.tool.eager

    def restore(self):
        """Timing, and when the first instruction ran."""
        timing = self.tool.restore(*self.how())
        woke = processes.wait_until(lambda: self.page.woke_after(timing.start),
                                    "the restored process to run")
        processes.end_all()
        return timing, woke - timing.start


class RestoreTiny(Restore):
    name, title = "restore-tiny", "restore of a tiny process"
    peers_too = True

    def declare(self):
        self.spawn = self.limit("fork+exec of true", "ms")
        self.first = self.figure("first instruction", "ms", self.spawn, self.goal(at_most(4)))
        self.command = self.figure("command finished", "ms")

    def measure(self, count):
        timing, first = self.restore()
        if not count:
            return
        self.note_phases(timing)
        self.measure_spawn(self.spawn)
        self.first.add_ns(first)
        if timing.end:
            self.command.add_ns(timing.ns)


class DumpMemory(Work):
    name, title = "dump-1g", "dump of 1 GiB, recycled space"
    share = 8
    arguments = ("--memory", str(MEMORY >> 20))
    peers_too = True
    recycle = True
    size = MEMORY
    copying, promised = ("memcpy, warm pages", "copy-warm"), 0.6

    def declare(self):
        self.copy = self.limit(self.copying[0], "GiB/s")
        self.command = self.figure("start to finish", "GiB/s", self.copy,
                                   self.goal(at_least(self.promised)) if self.recycle else None)
        self.still = self.figure("while it stood still", "GiB/s", self.copy)
        self.inside = self.figure("copying alone", "GiB/s", self.copy)
        self.frozen = self.figure("frozen", "ms")

    def measure(self, count):
        timing = self.tool.dump(self.pid, *self.tool.all_at_once)
        self.tool.remove(trim=not self.recycle)
        if not count:
            return
        self.note_phases(timing)
        self.measure_memory(self.copy, self.copying[1], MEMORY, 2)
        self.command.add_ns(timing.ns, self.size)
        if timing.report:
            if timing.report["recycled"] != self.recycle:
                raise RuntimeError(f"recycled is {timing.report['recycled']} in {timing.report}")
            self.inside.add_ns(timing.report["copy_us"] * 1000, timing.report["bytes"])
            self.still.add_ns(timing.report["frozen_us"] * 1000, timing.report["bytes"])
            self.frozen.add_ns(timing.report["frozen_us"] * 1000)


class DumpMemoryLarge(DumpMemory):
    """Beside what all processors can copy: copying is done by as many."""
    name, title = "dump-4g", "dump of 4 GiB, recycled space"
    share = 12
    size = 4 * MEMORY
    arguments = ("--memory", str(4 * MEMORY >> 20))
    peers_too = False
    copying, promised = ("memcpy, warm pages, all processors", "copy-all"), 0.8


class DumpMemoryFresh(DumpMemory):
    name, title = "dump-1g-fresh", "dump of 1 GiB, new space"
    share = 16
    peers_too = False
    recycle = False


class DumpLive(Work):
    """Copied while it runs and writes; frozen for what was written since."""
    name, title = "dump-live-1g", "live dump of 1 GiB that writes 100 MiB/s"
    share = 8
    arguments = ("--memory", str(MEMORY >> 20), "--write", "100")
    most_ms = 10

    def declare(self):
        self.frozen = self.figure("frozen", "ms", goal=self.goal(at_most(self.most_ms, "ms")))
        self.armed = self.figure("stopped to track it", "ms")
        self.command = self.figure("start to finish", "ms")

    def measure(self, count):
        timing = self.tool.dump(self.pid, "--live")
        self.tool.remove()
        if not count:
            return
        self.note_phases(timing)
        if not timing.report["rounds"]:
            raise RuntimeError(f"not a live dump: {timing.report}")
        self.frozen.add_ns(timing.report["frozen_us"] * 1000)
        self.armed.add_ns(timing.report["arm_frozen_us"] * 1000)
        self.command.add_ns(timing.ns)


class DumpLiveLarge(DumpLive):
    name, title = "dump-live-4g", "live dump of 4 GiB that writes 100 MiB/s"
    share = 16
    arguments = ("--memory", str(4 * MEMORY >> 20), "--write", "100")
    most_ms = 20


class DumpTracked(Work):
    """Each dump after the first stores what has changed since."""
    name, title = "dump-tracked-1g", "tracked dump of 1 GiB, 1 000 pages changed"
    share = 4
    arguments = ("--memory", str(MEMORY >> 20), "--touch", "1000")

    def declare(self):
        self.frozen = self.figure("frozen", "ms", goal=self.goal(at_most(3, "ms")))
        self.command = self.figure("start to finish", "ms")

    def set_up(self):
        super().set_up()
        self.n = 0
        self.tool.time(self.tool.command, "track", "-t", str(self.pid), "--heat", "never", "--json")
        self.next()

    def next(self):
        """The images stay: each refers to the ones before."""
        self.n += 1
        return self.tool.reported("dump", "-t", str(self.pid), "--name", f"tracked-{self.n}")

    def measure(self, count):
        os.kill(self.pid, signal.SIGUSR1)
        time.sleep(0.05)
        timing = self.next()
        if not count:
            return
        self.note_phases(timing)
        if not timing.report["parent"] or timing.report["pages"] > 3000:
            raise RuntimeError(f"not what has changed: {timing.report}")
        self.frozen.add_ns(timing.report["frozen_us"] * 1000)
        self.command.add_ns(timing.ns)


class RestoreMemory(Restore):
    name, title = "restore-1g", "restore of 1 GiB, eager"
    share = 8
    arguments = ("--spin", "--memory", str(MEMORY >> 20))
    peers_too = True

    def declare(self):
        self.copy = self.limit("memcpy, fresh anonymous pages", "GiB/s")
        self.read = self.limit("sequential read of the image", "GiB/s")
        self.command = self.figure("start to finish", "GiB/s", self.copy, self.goal(at_least(0.8)))
        self.first = self.figure("first instruction", "ms")

    def measure(self, count):
        timing, first = self.restore()
        if not count:
            return
        self.note_phases(timing)
        self.measure_memory(self.copy, "copy-fresh", MEMORY, 2)
        if hasattr(self.tool, "image"):
            self.measure_memory(self.read, "read", self.tool.image, 1)
        self.first.add_ns(first)
        if timing.end:
            self.command.add_ns(max(timing.ns, first), MEMORY)


class RestoreStreamed(Restore):
    """The program runs at once; its memory comes behind it."""
    share = 8
    size = None

    def how(self):
        return self.tool.streamed

    def declare(self):
        self.copy = self.limit("memcpy, fresh anonymous pages", "GiB/s")
        self.first = self.figure("first instruction", "ms", goal=self.goal(at_most(10, "ms")))
        self.resident = self.figure("full residence", "GiB/s", self.copy, self.goal(at_least(0.8)))

    def measure(self, count):
        timing, first = self.restore()
        if not count:
            return
        self.measure_memory(self.copy, "copy-fresh", self.size, 2)
        self.first.add_ns(first)
        self.resident.add_ns(timing.report["resident_us"] * 1000, self.size)


class RestoreStreamed64M(RestoreStreamed):
    name, title = "restore-stream-64m", "streamed restore of 64 MiB"
    size = 64 << 20
    arguments = ("--spin", "--memory", "64")


class RestoreStreamed1G(RestoreStreamed):
    name, title = "restore-stream-1g", "streamed restore of 1 GiB"
    size = 1 << 30
    arguments = ("--spin", "--memory", "1024")


class RestoreStreamed4G(RestoreStreamed):
    name, title = "restore-stream-4g", "streamed restore of 4 GiB"
    share = 16
    size = 4 << 30
    arguments = ("--spin", "--memory", "4096")


class DumpTree(Work):
    name, title = "dump-tree", "dump of 64 processes"
    share = 4
    arguments = ("--children", str(CHILDREN))
    peers_too = True

    def declare(self):
        self.frozen = self.figure("frozen", "ms", goal=self.goal(at_most(15, "ms")))
        self.command = self.figure("start to finish", "ms")

    def measure(self, count):
        timing = self.tool.dump(self.pid)
        self.tool.remove()
        if not count:
            return
        self.note_phases(timing)
        self.command.add_ns(timing.ns)
        if timing.report:
            if timing.report["processes"] != CHILDREN + 1:
                raise RuntimeError(f"not the whole tree: {timing.report}")
            self.frozen.add_ns(timing.report["frozen_us"] * 1000)


class RestoreTree(Restore):
    name, title = "restore-tree", "restore of 64 processes"
    share = 4
    arguments = ("--spin", "--children", str(CHILDREN))
    peers_too = True

    def declare(self):
        self.command = self.figure("start to finish", "ms")
        self.first = self.figure("first instruction of the root", "ms")

    def measure(self, count):
        timing, first = self.restore()
        if not count:
            return
        self.note_phases(timing)
        self.first.add_ns(first)
        if timing.end:
            self.command.add_ns(timing.ns)


class Place:
    """Where everything is: the work directory, the programs."""

    def __init__(self, work, programs):
        self.work, self.programs = work, programs
        self.true = shutil.which("true")

    def program(self, name):
        return os.path.join(self.programs, name)


KINDS = (DumpTiny, RestoreTiny, DumpMemory, DumpMemoryLarge, DumpLive, DumpLiveLarge, DumpTracked, RestoreMemory,
         RestoreStreamed64M, RestoreStreamed1G, RestoreStreamed4G, DumpTree, Frozen, DumpMemoryFresh,
         RestoreTree)
IN_BOTH_LINKINGS = (DumpTiny, RestoreTiny)


def all_works(fsnap, peers, place):
    works = []
    for kind in KINDS:
        works.append(kind(fsnap, place))
        if kind in IN_BOTH_LINKINGS:
            works.append(kind(fsnap, place, dynamic=True))
        works += [kind(peer, place) for peer in peers if kind.peers_too]
    return works
