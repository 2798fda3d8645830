"""The workloads of bench/warm that are not reader.c: databases with a table larger than its hot part,
and programs that start. Each is one of the experiments that move a program and wait for its speed."""

import glob
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import processes
from warmth import MIB, SETTLE, Returning

WORKLOADS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "workloads")
ROW = 400  # bytes
UID = 65534  # a server of PostgreSQL does not run as root


class Workload(Returning):
    unit = "answers"

    def python(self, slices, name, *arguments, before=()):
        os.chmod(slices.path, 0o666)
        return processes.spawn([*before, sys.executable, "-B", os.path.join(WORKLOADS, name), slices.path,
                                *arguments], os.path.join(self.mover.place.work, "workload.out"))


class Sqlite(Workload):
    """Point queries of SQLite over the hot tenth of a table (--table)."""
    name = "sqlite"

    def prepare(self):
        path = self.mover.storage.path("table.db")
        self.rows = self.options.table // (ROW + 16)
        table = sqlite3.connect(path)
        table.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                            "CREATE TABLE entries (id INTEGER PRIMARY KEY, payload BLOB)")
        table.executemany("INSERT INTO entries VALUES (?, ?)",
                          ((i, os.urandom(ROW)) for i in range(self.rows)))
        table.commit()
        table.close()
        self.files, self.hot = [path], os.stat(path).st_size // 10

    def start(self, slices):
        return self.python(slices, "sqlite_points.py", self.files[0], str(self.rows))


class Postgresql(Workload):
    """Point queries of PostgreSQL over the hot tenth of a table (--table), client and server moved together."""
    name = "postgresql"

    def prepare(self):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not found:
            raise RuntimeError("there is no PostgreSQL here")
        self.programs, self.data = found[-1], self.mover.storage.path("data")
        self.socket = os.path.join(self.mover.place.work, "socket")
        for path in (self.data, self.socket):
            os.mkdir(path, 0o700)
            os.chown(path, UID, UID)
        os.chmod(self.mover.place.work, 0o711)
        # 100000 rows of pgbench are 12.8 MiB of table and 2.2 of index.
        scale = max(1, self.options.table // (15 * MIB))
        self.rows = 100000 * scale
        self.command("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-N")
        server = processes.spawn([*self.user(), f"{self.programs}/postgres", "-D", self.data, "-k", self.socket, "-c",
                                  "listen_addresses=", "-c", "fsync=off"],
                                 os.path.join(self.mover.place.work, "server.out"))
        processes.wait_until(lambda: os.path.exists(f"{self.socket}/.s.PGSQL.5432.lock"), "the server")
        time.sleep(1)
        self.command("pgbench", "-q", "-i", "-s", str(scale), "-h", self.socket, "-U", "postgres", "postgres")
        os.kill(server, 2)
        processes.wait(server)
        os.sync()
        self.files = [path for path in glob.glob(f"{self.data}/base/*/*") if os.stat(path).st_size >= MIB]
        self.hot = sum(os.stat(path).st_size for path in self.files) // 10

    @staticmethod
    def user():
        return ["/usr/bin/setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]

    def command(self, name, *arguments):
        done = subprocess.run([*self.user(), f"{self.programs}/{name}", *arguments], cwd=self.socket, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr}")

    def start(self, slices):
        return self.python(slices, "postgresql_points.py", self.programs, self.data, self.socket, str(self.rows),
                           before=self.user())

    def before(self, slices, pid):
        processes.wait_until(lambda: slices.sum(), "the first answer")
        super().before(slices, pid)

    def clear(self):
        shutil.rmtree(self.data)


class Imports(Workload):
    """A Python program's start-up: until the first of many that import much is done. Its files are opened and
    closed again: a watch knows them."""
    name = "imports"

    def prepare(self):
        self.library = self.mover.storage.path("library")
        shutil.copytree(os.path.dirname(os.__file__), self.library,
                        ignore=shutil.ignore_patterns("dist-packages", "site-packages", "test"))
        os.sync()
        self.files = [os.path.join(top, name) for top, _, names in os.walk(self.library) for name in names
                      if not os.path.islink(os.path.join(top, name))]
        # What is imported is not all of it: here `device` says how much more or less was read.
        self.hot = sum(os.stat(path).st_size for path in self.files)

    def start(self, slices):
        return self.python(slices, "imports.py", self.library)

    def before(self, slices, pid):
        self.mover.fsnap.time(self.mover.fsnap.command, "heat", "-t", str(pid), "--watch")
        slices.begin(True)
        processes.wait_until(lambda: slices.sum() >= 1, "a program to start")
        begun, done = time.monotonic(), slices.sum()
        processes.wait_until(lambda: slices.sum() >= done + 5, "five programs to start")
        self.speed = (slices.sum() - done) / (time.monotonic() - begun)
        slices.begin(False)
        time.sleep(SETTLE)

    def warm(self, slices):
        """Programs a second."""
        return self.speed

    def between(self, slices):
        slices.begin(True)

    def back(self, slices, since, warm):
        """Here it is the first that is done."""
        return slices.first(since, time.monotonic_ns())
