"""The same gibibyte stored as it is, compressed, encrypted, both: how long the tree stands still, until the image is
durable, until all memory is back, eager and streamed; and how long the file is. Of its words three in four repeat, as in
the memory of programs."""

import os

import processes
from works import MEMORY, Work

WAYS = (("plain",), ("lz4", "--compress", "lz4"), ("zstd", "--compress", "zstd"), ("zstd-9", "--compress", "zstd:9"),
        ("xchacha20", "--encrypt"), ("aes256", "--cipher", "aes256", "--encrypt"),
        ("lz4-xchacha20", "--compress", "lz4", "--encrypt"))


class Coded(Work):
    share = 16
    arguments = ("--compressible", "--memory", str(MEMORY >> 20))

    def __init__(self, tool, place, way, *options):
        self.name, self.title = f"coded-{way}", f"1 GiB, stored {way}"
        self.options = options
        super().__init__(tool, place)
        self.key = os.path.join(place.work, "key")

    def declare(self):
        self.frozen = self.figure("frozen", "ms")
        self.durable = self.figure("dump", "GiB/s")
        self.file = self.figure("part of a GiB in the file", "ratio")
        self.eager = self.figure("restore, eager", "GiB/s")
        self.first = self.figure("streamed: restored", "ms")
        self.resident = self.figure("streamed: all is there", "GiB/s")

    def set_up(self):
        if not os.path.exists(self.key):
            self.tool.time(self.tool.command, "keygen", "--secret", self.key)
        encrypted = self.options[-1:] == ("--encrypt",)
        self.store = (*self.options, self.key) if encrypted else self.options
        self.load = ("--decrypt", self.key) if encrypted else ()

    def measure(self, count):
        dump = self.tool.dump(self.start(), "--no-live", *self.store, kill=True)
        length = os.stat(self.tool.image).st_size
        eager = self.tool.restore(*self.tool.eager, *self.load)
        processes.end_all()
        streamed = self.tool.restore(*self.tool.streamed, *self.load)
        processes.end_all()
        self.tool.remove()
        if not count:
            return
        self.note_phases(dump)
        self.frozen.add_ns(dump.report["frozen_us"] * 1000)
        self.durable.add_ns(dump.ns, MEMORY)
        self.file.values.append(length / MEMORY)
        self.eager.add_ns(eager.ns, MEMORY)
        self.first.add_ns(streamed.report["first_instruction_us"] * 1000)
        self.resident.add_ns(streamed.report["resident_us"] * 1000, MEMORY)


def all_works(fsnap, place):
    with open("/proc/cpuinfo", encoding="ascii") as f:
        aes = " aes " in f.read()
    return [Coded(fsnap, place, *way) for way in WAYS if aes or way[0] != "aes256"]
