#!/usr/bin/python3
"""PostgreSQL at work, with its clients in the tree: pgbench with four connections and psql in the midst of a
transaction are saved where they go on, then killed and brought back, twice. No transaction that pgbench was
told of is lost, none is there twice, psql's goes on; once with its memory from mmap, once from System V with all
System V objects gone in between. Then with clients outside, whose TCP connections are kept."""

import glob
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import sysv  # noqa: E402
import trial  # noqa: E402

UID, PORT = 1000, 8006
TRANSACTIONS = 1500  # by each of four


class Server:
    """A shell whose children are the server, psql and pgbench."""

    def __init__(self, t, programs, memory):
        self.t, self.programs, self.memory = t, programs, memory
        self.data, self.socket = t.path(f"data.{memory}"), t.path(f"socket.{memory}")
        for path in (self.data, self.socket):
            os.mkdir(path, 0o700)
            os.chown(path, UID, UID)
        self.environment = {"PATH": f"{programs}:/usr/bin:/bin", "LC_ALL": "C", "HOME": self.socket}

    def spawn(self, script):
        return children.spawn(["/bin/sh", "-c", script], out=self.path("out"), cwd=self.socket, session=True,
                              env=self.environment, uid=UID)

    def run(self, *argv):
        done = subprocess.run(argv, env=self.environment, cwd=self.socket, user=UID, group=UID,
                              extra_groups=[], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise trial.Stop(f"{argv}: {done.stderr}")
        return done.stdout

    def sql(self, text):
        return self.run("psql", "-X", "-h", self.socket, "-U", "postgres", "-Atc", text, "postgres").strip()

    def path(self, name):
        return os.path.join(self.socket, name)

    def initdb(self):
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-N")

    def start_alone(self):
        self.initdb()
        pid = self.spawn(f"exec postgres -D {self.data} -k {self.socket} -c listen_addresses=127.0.0.1 -p {PORT} "
                         "-c fsync=off")
        self.environment["PGPORT"] = str(PORT)
        self.t.until("the server", lambda: self.answers(), 30)
        self.run("pgbench", "-q", "-i", "-h", self.socket, "-U", "postgres", "postgres")
        return pid

    def answers(self):
        return subprocess.run(["pg_isready", "-q", "-h", self.socket], env=self.environment).returncode == 0

    def start(self):
        self.initdb()
        os.mkfifo(self.path("in"))
        os.chown(self.path("in"), UID, UID)
        script = f"""
            postgres -D {self.data} -k {self.socket} -c listen_addresses= -c fsync=off \\
                     -c shared_memory_type={self.memory} &
            until pg_isready -q -h {self.socket}; do sleep 0.1; done
            pgbench -q -i -h {self.socket} -U postgres postgres
            exec 3<>in
            psql -X -h {self.socket} -U postgres -At postgres <&3 >psql.out 2>&1 &
            pgbench -n -c 4 -j 2 -t {TRANSACTIONS} -h {self.socket} -U postgres postgres >bench.out 2>&1 &
            wait"""
        return self.spawn(script)

    def said(self, name):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()

    def say(self, text):
        with open(self.path("in"), "w", encoding="utf-8") as f:
            f.write(text + "\n")

    def accounts(self):
        """What pgbench was told of, and what there is."""
        t = self.t
        t.until("the end of pgbench", lambda: "latency average" in self.said("bench.out"), 90)
        told = re.search(r"actually processed: (\d+)", self.said("bench.out"))
        t.expect("transactions pgbench was told of", 4 * TRANSACTIONS, int(told[1]) if told else None)
        t.expect("transactions there are", str(4 * TRANSACTIONS), self.sql("select count(*) from pgbench_history"))
        for table in ("accounts", "tellers", "branches"):
            t.expect(f"balance of {table}", self.sql("select sum(delta) from pgbench_history"),
                     self.sql(f"select sum({table[0]}balance) from pgbench_{table}"))


def one(t, programs, memory, gone):
    server = Server(t, programs, memory)
    pid = server.start()
    t.until("psql", lambda: os.path.exists(server.path("bench.out")), 30)
    server.say("create table kept (i int); begin; insert into kept select generate_series(1, 1000); "
               "select 'within';")
    t.until("its transaction", lambda: "within" in server.said("psql.out"))
    t.dump(pid)
    for _ in range(2):
        report = t.dump(pid, "--kill")
        if gone:
            sysv.remove_all()
        t.restore(report["image"])
    server.say("insert into kept select generate_series(1, 500); commit; select 'rows', count(*) from kept;")
    t.until("the end of psql's transaction", lambda: "rows|1500" in server.said("psql.out"))
    server.accounts()
    os.killpg(pid, 9)
    t.until("its end", lambda: not children.wait_gone([pid], 0.1))


def through_tcp(t, programs):
    server = Server(t, programs, "tcp")
    pid = server.start_alone()
    load = server.spawn(f"pgbench -n -c 4 -j 2 -t {TRANSACTIONS} -h 127.0.0.1 -p {PORT} -U postgres postgres "
                        ">bench.out 2>&1")
    for kill in ([], ["--kill"], ["--kill"]):
        before = server.sql("select count(*) from pgbench_history")
        t.until("transactions go on", lambda: server.sql("select count(*) from pgbench_history") != before)
        report = t.dump(pid, "--tcp", "keep", *kill)
        if kill:
            t.restore(report["image"])
    server.accounts()
    t.expect("exit status of pgbench", 0, children.wait(load, 20))
    os.kill(pid, 15)
    t.expect("exit status of the server", 0, children.wait(pid, 20))


def body(t):
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pgbench")) or [shutil.which("pgbench") or ""]
    programs = os.path.dirname(os.path.realpath(found[-1])) if found[-1] else ""
    if not os.path.exists(os.path.join(programs, "postgres")):
        sandbox.skip("PostgreSQL is not installed")
    one(t, programs, "mmap", False)
    if not t.control:
        one(t, programs, "sysv", True)
    through_tcp(t, programs)


trial.main(body)
