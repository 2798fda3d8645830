"""The commands that are measured: fsnap, and peers if they are in PATH.

A tool starts a specimen, dumps it, restores it and removes what it stored; a dump and a restore
are timed from outside, by stopwatch.c. fsnap alone adds what it says of itself."""

import json
import os
import shutil
import time

import processes


class Timing:
    """ns of CLOCK_MONOTONIC; `end` is None where the command stays with what it restored."""

    def __init__(self, start, end, report=None):
        self.start, self.end, self.report = start, end, report

    @property
    def ns(self):
        return self.end - self.start


class Tool:
    name = None
    all_at_once = ()  # options of dump: nothing is copied before the freeze
    eager = streamed = awaited = ()  # of restore: all memory first; behind it; wait for it

    def __init__(self, work, programs):
        self.work, self.programs = work, programs
        self.out = os.path.join(work, f"{self.name}.out")

    def time(self, *argv):
        """Runs argv under the stopwatch; the output stands in self.out."""
        printed = processes.output_of([os.path.join(self.programs, "stopwatch"), self.out, *argv],
                                      self.out + ".time")
        start, end, status = map(int, printed.split())
        if status:
            raise RuntimeError(f"{' '.join(argv)}: exit status {status}: " + "".join(
                open(self.out + suffix, encoding="utf-8", errors="replace").read()
                for suffix in ("", ".err")))
        return Timing(start, end)

    def start(self, argv):
        """Starts a specimen; returns its PID."""
        return processes.spawn(argv)


class Fsnap(Tool):
    name = "fsnap"
    all_at_once = ("--no-live",)
    eager, awaited = ("--memory", "eager"), ("--wait-resident",)
    streamed = ("--memory", "stream", *awaited)

    def __init__(self, work, programs, command, store):
        super().__init__(work, programs)
        self.command, self.store = command, store

    def reported(self, *arguments):
        timing = self.time(self.command, *arguments, "--store", self.store, "--json")
        with open(self.out, encoding="utf-8") as f:
            timing.report = json.load(f)
        return timing

    def dump(self, pid, *options, kill=False):
        return self.reported("dump", "-t", str(pid), "--name", "bench", *options,
                             *(["--kill"] if kill else []))

    def restore(self, *options):
        return self.reported("restore", "bench", "-d", *options)

    def remove(self, trim=False):
        """Without `trim` the space stays for the next dump."""
        self.time(self.command, "rm", "--all", *(["--trim"] if trim else []),
                  "--store", self.store)

    @property
    def image(self):
        return os.path.join(self.store, "images", "bench.fsnap")


class Criu(Tool):
    name = "criu"

    def __init__(self, work, programs, command):
        super().__init__(work, programs)
        self.command, self.images = command, os.path.join(work, "criu")
        os.makedirs(self.images, exist_ok=True)

    def dump(self, pid, kill=False):
        return self.time(self.command, "dump", "-t", str(pid), "-D", self.images,
                         *([] if kill else ["--leave-running"]))

    def restore(self, *_options):
        return self.time(self.command, "restore", "-d", "-D", self.images)

    def remove(self, trim=False):
        shutil.rmtree(self.images)
        os.makedirs(self.images)


class Dmtcp(Tool):
    """It must start what it saves, and preloads a library: dynamic programs only."""
    name = "dmtcp"
    dynamic = True

    def __init__(self, work, programs, directory):
        super().__init__(work, programs)
        self.directory, self.images = directory, os.path.join(work, "dmtcp")
        self.port_file, self.port = os.path.join(work, "dmtcp.port"), None
        os.makedirs(self.images, exist_ok=True)

    def command(self, name):
        return os.path.join(self.directory, name)

    def start(self, argv):
        if os.path.exists(self.port_file):
            os.unlink(self.port_file)
        pid = processes.spawn([self.command("dmtcp_launch"), "--new-coordinator",
                               "--coord-port", "0", "--port-file", self.port_file,
                               "--ckptdir", self.images, *argv])
        processes.wait_until(lambda: os.path.exists(self.port_file), "dmtcp's coordinator")
        with open(self.port_file, encoding="ascii") as f:
            self.port = f.read().strip()
        return pid

    def dump(self, _pid, kill=False):
        timing = self.time(self.command("dmtcp_command"), "--coord-port", self.port,
                           "--bcheckpoint")
        if kill:
            processes.end_all()
        return timing

    def restore(self, *_options):
        images = [os.path.join(self.images, x) for x in os.listdir(self.images)
                  if x.endswith(".dmtcp")]
        start = time.monotonic_ns()
        processes.spawn([self.command("dmtcp_restart"), "--new-coordinator", "--coord-port", "0",
                         "--port-file", self.port_file, *images])
        return Timing(start, None)

    def remove(self, trim=False):
        shutil.rmtree(self.images)
        os.makedirs(self.images)


def peers(work, programs):
    """Those that are installed; none is ever installed for this."""
    found = []
    if command := shutil.which("criu"):
        found.append(Criu(work, programs, command))
    if command := shutil.which("dmtcp_launch"):
        found.append(Dmtcp(work, programs, os.path.dirname(command)))
    return found
