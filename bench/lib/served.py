"""What clients of a server notice: requests a second and how long they wait, undisturbed; while
the server is dumped again and again; while it is dumped, killed and restored in the midst of it all.
Redis under redis-benchmark, PostgreSQL under pgbench. Their connections are kept, so each answer
that was waited for comes."""

import csv
import glob
import json
import os
import random
import shutil
import signal
import socket
import statistics
import time

import processes
from figures import at_least, at_most
from works import Work

SECONDS = 3
PAUSE = 0.3  # between two dumps of a server that is dumped again and again
UID = 1000
KEYS = 1_000_000
WINDOW = 100  # requests that are looked at together where a speed is wanted
PERCENTILES = ("p50", "p99", "longest")


class Answers:
    """What one run of a load program says: requests a second; ms of latency."""

    def __init__(self, rate, p50, p99, longest):
        self.rate, self.p50, self.p99, self.longest = rate, p50, p99, longest


class Redis:
    name, title, program = "redis", "Redis, a million keys", "redis-server"

    seconds = SECONDS  # of a run of the load
    request = "get"

    def __init__(self, work):
        self.work, self.port, self.requests = work, free_port(), 50_000
        self.server, self.load = shutil.which("redis-server"), shutil.which("redis-benchmark")

    def start(self):
        pid = processes.spawn([self.server, "--port", str(self.port), "--save", "", "--appendonly", "no",
                               "--dir", self.work, "--enable-debug-command", "yes"])
        probe = processes.wait_until(self.probe, "Redis")
        probe.ask("DEBUG", "POPULATE", str(KEYS), "sample", "24")
        probe.close()
        # As many requests as make a run of the wanted length.
        self.requests = int(self.end(self.begin()).rate * self.seconds)
        return pid

    def begin(self):
        return processes.spawn([self.load, "-p", str(self.port), "-c", "20", "-n", str(self.requests),
                                "-r", str(KEYS), "-t", self.request, "--csv", "--precision", "3"], self.out())

    def out(self):
        return os.path.join(self.work, "load.out")

    def end(self, load):
        if processes.wait(load):
            raise RuntimeError("redis-benchmark failed")
        with open(self.out(), encoding="utf-8") as f:
            row = next(csv.DictReader(f))
        return Answers(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]),
                       float(row["max_latency_ms"]))

    def probe(self):
        try:
            return RedisProbe(self.port)
        except OSError:
            return None


class RedisProbe:
    """One client that asks for keys that are there, one after the other."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.lines = self.socket.makefile("rb")
        try:
            self.ask("PING")
        except OSError:
            self.close()
            raise

    def ask(self, *words):
        self.socket.sendall(f"*{len(words)}\r\n".encode() +
                            b"".join(f"${len(x)}\r\n{x}\r\n".encode() for x in words))
        line = self.lines.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("end of file")
        if line[:1] == b"$":
            self.lines.read(int(line[1:]) + 2)

    def window(self):
        """ns that a hundred requests take."""
        start = time.monotonic_ns()
        for _ in range(WINDOW):
            self.ask("GET", f"sample:{random.randrange(KEYS)}")
        return time.monotonic_ns() - start

    def close(self):
        self.lines.close()
        self.socket.close()


class PostgreSql:
    name, title, program = "postgresql", "PostgreSQL, pgbench", "postgres"

    def __init__(self, work):
        self.home, self.port = os.path.join(work, "postgresql"), free_port()
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
        self.server = found[-1] if found else shutil.which("postgres")
        self.programs = os.path.dirname(self.server or "")

    def argv(self, name, *arguments):
        """As the ordinary user that it insists on."""
        return ["/usr/bin/setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
                "/usr/bin/env", "-C", self.home, "LC_ALL=C", os.path.join(self.programs, name), *arguments]

    def run(self, name, *arguments):
        return processes.output_of(self.argv(name, *arguments), self.home + ".out")

    def client(self, name, *arguments):
        return self.argv(name, "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *arguments)

    def start(self):
        shutil.rmtree(self.home, ignore_errors=True)
        os.mkdir(self.home, 0o700)
        os.chown(self.home, UID, UID)
        data = os.path.join(self.home, "data")
        self.run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N")
        pid = processes.spawn(self.argv("postgres", "-D", data, "-k", self.home, "-p", str(self.port), "-c",
                                        "listen_addresses=127.0.0.1", "-c", "fsync=off"))
        processes.wait_until(lambda: not processes.wait(processes.spawn(self.client("pg_isready", "-q"))),
                             "PostgreSQL")
        processes.output_of(self.client("pgbench", "-q", "-i", "-s", "10", "postgres"), self.home + ".out")
        return pid

    def begin(self):
        return processes.spawn(self.client("pgbench", "-n", "-S", "-M", "prepared", "-c", "8", "-T", str(SECONDS),
                                           "-l", "--log-prefix=load", "postgres"), self.home + ".out")

    def end(self, load):
        if processes.wait(load):
            raise RuntimeError("pgbench failed")
        waited = []
        for path in glob.glob(os.path.join(self.home, "load.*")):
            with open(path, encoding="ascii") as f:
                waited += [int(line.split()[2]) / 1000 for line in f]
            os.unlink(path)
        cuts = statistics.quantiles(waited, n=100)
        return Answers(len(waited) / SECONDS, cuts[49], cuts[98], max(waited))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Served(Work):
    share = 16
    server = None

    def __init__(self, tool, place):
        self.name, self.title = f"served-{self.server.name}", self.server.title
        super().__init__(tool, place)

    def declare(self):
        self.alone = {key: self.limit(f"{key} undisturbed", "ms") for key in PERCENTILES}
        self.alone_rate = self.limit("requests undisturbed", "/s")
        self.seen = {how: self.figures_of(how) for how in ("dumped", "moved")}
        self.dumps = self.figure("dumps a second", "/s")
        self.frozen = self.figure("frozen", "ms")
        self.away = self.figure("dumped, killed, restored", "ms")
        self.first = self.figure("restore: first answer", "ms")
        self.full = self.figure("restore: answers at full speed", "ms")

    def figures_of(self, how):
        return {"rate": self.figure(f"{how}: requests", "/s", self.alone_rate),
                **{key: self.figure(f"{how}: {key}", "ms", self.alone[key]) for key in PERCENTILES}}

    def set_up(self):
        os.chmod(self.place.work, 0o711)  # to a server that is not root's
        self.running = self.server(self.place.work)
        if not self.running.server:
            raise RuntimeError(f"{self.server.program} is not installed")
        self.pid = self.running.start()

    def measure(self, count):
        alone, dumped, moved = self.undisturbed(), self.dumped(count), self.moved(count)
        if hasattr(self.running, "probe"):
            self.asked_again(count)
        if not count:
            return
        self.alone_rate.samples.values.append(alone.rate)
        for key in PERCENTILES:
            self.alone[key].samples.values.append(getattr(alone, key))
        for how, answers in (("dumped", dumped), ("moved", moved)):
            for key, samples in self.seen[how].items():
                samples.values.append(getattr(answers, key))

    def undisturbed(self):
        return self.running.end(self.running.begin())

    def dumped(self, count):
        load, start, n = self.running.begin(), time.monotonic(), 0
        while time.monotonic() - start < SECONDS - 2 * PAUSE:
            report = self.tool.dump(self.pid, "--tcp", "keep").report
            self.tool.remove()
            n += 1
            if count:
                self.frozen.add_ns(report["frozen_us"] * 1000)
            time.sleep(PAUSE)
        if count:
            self.dumps.values.append(n / (time.monotonic() - start))
        return self.running.end(load)

    def moved(self, count):
        """The load goes on all the time: its longest wait is what a user sees of a move."""
        load = self.running.begin()
        time.sleep(SECONDS / 3)
        start = time.monotonic_ns()
        self.tool.dump(self.pid, "--tcp", "keep", "--kill")
        self.tool.restore("--tcp", "keep")
        if count:
            self.away.add_ns(time.monotonic_ns() - start)
        answers = self.running.end(load)
        self.tool.remove()
        return answers

    def asked_again(self, count):
        """From the start of a restore to the first answer, and to the first hundred as quick as before."""
        probe = self.running.probe()
        usual = statistics.median(probe.window() for _ in range(50))
        probe.close()
        self.tool.dump(self.pid, "--kill")
        timing = self.tool.restore()
        probe = processes.wait_until(self.running.probe, "an answer")
        first = time.monotonic_ns()
        while probe.window() > 1.25 * usual and time.monotonic_ns() < first + 10**10:
            pass
        full = time.monotonic_ns()
        probe.close()
        self.tool.remove()
        if count:
            self.first.add_ns(first - timing.start)
            self.full.add_ns(full - timing.start)


class ServedRedis(Served):
    server = Redis


class ServedPostgreSql(Served):
    server = PostgreSql


class WatchedRedis(Redis):
    seconds = 1.5  # undisturbed and watched in turns: many short runs rather than a few long ones


class WatchRedis(Served):
    """An image every ten milliseconds, into memory; undisturbed and watched in turns, so that what others do falls on
    both. A watch has made its first image, which is whole, when it counts."""
    server = WatchedRedis
    warm = 1 << 29
    every, keep, moments = "10ms", "100", 100  # a second

    def __init__(self, tool, place):
        super().__init__(tool, place)
        self.name, self.title = "watch-redis", "Redis, an image every 10 ms"

    def declare(self):
        self.alone = {key: self.limit(f"{key} undisturbed", "ms") for key in PERCENTILES}
        self.alone_rate = self.limit("requests undisturbed", "/s")
        self.rate = self.figure("requests", "/s", self.alone_rate, at_least(0.9))
        self.waits = {key: self.figure(key, "ms", self.alone[key], at_most(2) if key == "p99" else None)
                      for key in PERCENTILES}
        self.images = self.figure("images a second", "/s")
        self.missed = {"late": self.figure("moments missed, an image took too long", "%"),
                       "spared": self.figure("moments missed, so that it is not still too long", "%")}
        self.frozen = self.figure("frozen", "ms")
        self.frozen_p99 = self.figure("frozen, p99", "ms")
        self.still = self.figure("frozen, of the time", "%")
        self.took = self.figure("an image", "ms")
        self.cpu = self.figure("an image, processor time", "ms")

    def measure(self, count):
        alone = self.undisturbed()
        out = os.path.join(self.place.work, "watch.out")
        watch = processes.spawn([self.tool.command, "watch", "-t", str(self.pid), "--every", self.every, "--keep",
                                 self.keep, "--name", "watch", "--store", self.tool.store, "--json"], out)
        first = processes.wait_until(lambda: self.said(out), "the first image")
        start, used = time.monotonic(), processes.used_ns(watch)
        answers = self.undisturbed()
        seconds, used = time.monotonic() - start, processes.used_ns(watch) - used
        images = self.said(out)[len(first):]
        os.kill(watch, signal.SIGINT)
        if processes.wait(watch) or not images:
            raise RuntimeError(f"the watch made {len(images)} images: {read(out + '.err')}")
        if count:
            self.note(alone, answers, images, self.said(out)[-1], seconds, used)
        self.tool.remove()

    @staticmethod
    def said(out):
        """Whole lines only: it may be writing one."""
        return [json.loads(x) for x in read(out).splitlines(keepends=True) if x.endswith("\n")]

    def note(self, alone, answers, images, summary, seconds, used):
        self.alone_rate.samples.values.append(alone.rate)
        self.rate.values.append(answers.rate)
        for key in PERCENTILES:
            self.alone[key].samples.values.append(getattr(alone, key))
            self.waits[key].values.append(getattr(answers, key))
        self.images.values.append(len(images) / seconds)
        frozen = sorted(x["frozen_us"] / 1000 for x in images)
        self.frozen_p99.values.append(frozen[len(frozen) * 99 // 100])
        self.still.values.append(sum(frozen) / seconds / 10)
        self.cpu.add_ns(used / len(images))
        for key, samples in self.missed.items():
            samples.values.append(100 * summary[key] / (summary["total_us"] / 1e6 * self.moments))
        for image in images:
            self.frozen.add_ns(image["frozen_us"] * 1000)
            self.took.add_ns(image["total_us"] * 1000)


class WrittenRedis(Redis):
    seconds, request = 1.5, "set"


class TrackRedis(Served):
    """What is written is noticed from the first dump of a tracked tree on: its clients write random keys, undisturbed
    and tracked in turns."""
    server = WrittenRedis

    def __init__(self, tool, place):
        super().__init__(tool, place)
        self.name, self.title = "track-redis", "Redis, tracked, clients that write"

    def declare(self):
        self.alone_rate = self.limit("requests undisturbed", "/s")
        self.rate = self.figure("requests", "/s", self.alone_rate, at_least(0.98))
        self.pages = self.figure("pages of 4 KiB noticed", "")

    def measure(self, count):
        alone = self.undisturbed()
        self.tool.time(self.tool.command, "track", "-t", str(self.pid), "--heat", "never", "--json")
        self.tool.reported("dump", "-t", str(self.pid), "--name", "tracked-1")
        answers = self.undisturbed()
        noticed = self.tool.reported("dump", "-t", str(self.pid), "--name", "tracked-2").report
        self.tool.time(self.tool.command, "track", "-t", str(self.pid), "--stop", "--json")
        self.tool.remove()
        if not noticed["parent"]:
            raise RuntimeError(f"not what has changed: {noticed}")
        if count:
            self.alone_rate.samples.values.append(alone.rate)
            self.rate.values.append(answers.rate)
            self.pages.values.append(noticed["pages"])


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def all_works(fsnap, place):
    return [kind(fsnap, place) for kind in (ServedRedis, ServedPostgreSql, WatchRedis, TrackRedis)]
