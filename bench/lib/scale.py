"""How time grows with the size of a tree: eight times as many processes, threads, descriptors or
mappings, in four steps. What is linear takes no more time for each of them at the end than in
the middle."""

import contextlib

import processes
from figures import at_most
from works import Restore

STEPS = (1 / 8, 1 / 4, 1 / 2, 1)
MAP_LIMIT = "/proc/sys/vm/max_map_count"


class Scale(Restore):
    """Each size is a specimen of its own: dumped a few times, killed, restored a few times."""
    kind, most, each = None, 0, None
    share = 16

    def __init__(self, tool, place):
        self.name, self.title = f"scale-{self.kind}", f"{self.most} {self.kind}"
        super().__init__(tool, place)

    def declare(self):
        self.sizes = [int(self.most * step) for step in STEPS]
        self.dumps, self.frozen, self.restores = {}, {}, {}
        for size in self.sizes:
            half = self.halves(size)
            last = at_most(2.5) if size == self.most else None
            self.dumps[size] = self.figure(f"dump of {size}", "ms", half and half[0],
                                           last and self.goal(last))
            self.frozen[size] = self.figure(f"frozen, {size}", "ms")
            self.restores[size] = self.figure(f"restore of {size}", "ms", half and half[1],
                                              last and self.goal(last))
        if self.each:
            self.unit = self.figure(f"restore, for each of {self.most}", "us",
                                    goal=self.goal(at_most(self.each, "us")))

    def halves(self, size):
        if size == self.sizes[0]:
            return None
        return (Half(f"that of {size // 2}", self.dumps[size // 2]),
                Half(f"that of {size // 2}", self.restores[size // 2]))

    def run(self, repetitions):
        with self.limits_raised():
            for size in self.sizes:
                self.measure_size(size, max(3, repetitions // self.share))
                processes.end_all()
                self.tool.remove(trim=True)

    def measure_size(self, size, repetitions):
        self.arguments = ("--spin", "--" + self.option(), str(size))
        pid = self.start()
        for i in range(repetitions + 1):
            timing = self.tool.dump(pid)
            self.tool.remove()
            if i:
                self.dumps[size].add_ns(timing.ns)
                self.frozen[size].add_ns(timing.report["frozen_us"] * 1000)
        self.tool.dump(pid, kill=True)
        for i in range(repetitions + 1):
            timing, first = self.restore()
            if i:
                self.restores[size].add_ns(max(timing.ns, first))
                if self.each and size == self.most:
                    self.unit.add_ns(max(timing.ns, first) / size)

    def option(self):
        return self.kind

    @contextlib.contextmanager
    def limits_raised(self):
        yield


class Half:
    """A figure of this work as the limit of another: shown with that one, not again."""
    def __init__(self, name, samples):
        self.name, self.samples = name, samples


class Processes(Scale):
    kind, most = "processes", 1000

    def option(self):
        return "children"


class Threads(Scale):
    kind, most = "threads", 1000


class Descriptors(Scale):
    kind, most, each = "descriptors", 10000, 20


class Mappings(Scale):
    kind, most = "mappings", 100000

    @contextlib.contextmanager
    def limits_raised(self):
        """The kernel's own limit, 65530, is for the whole machine."""
        with open(MAP_LIMIT, encoding="ascii") as f:
            was = f.read()
        try:
            with open(MAP_LIMIT, "w", encoding="ascii") as f:
                f.write(str(4 * self.most))
            yield
        finally:
            with open(MAP_LIMIT, "w", encoding="ascii") as f:
                f.write(was)


def all_works(fsnap, place):
    return [kind(fsnap, place) for kind in (Processes, Threads, Descriptors, Mappings)]
