#!/usr/bin/python3
"""Redis with a million keys under load: dumped and killed, restored; every key is there, every
increment that was acknowledged is counted, and clients that come back are served. With --tcp keep
they need not come back: the same connections go on."""

import os
import random
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT, KEYS = 6379, 1_000_000


class Client:
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=30)
        self.lines = self.socket.makefile("rb")

    def ask(self, *words):
        request = b"*%d\r\n" % len(words)
        for word in map(str, words):
            request += b"$%d\r\n%s\r\n" % (len(word), word.encode())
        self.socket.sendall(request)
        line = self.lines.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("end of file")
        if line[:1] == b"$":
            return self.lines.read(int(line[1:]) + 2)[:-2].decode() if line[1:3] != b"-1" else None
        return int(line[1:]) if line[:1] == b":" else line[1:].strip().decode()


def count_until_reset(acknowledged):
    """Increments as fast as the server answers, until the connection is gone."""
    try:
        client = Client()
        while True:
            acknowledged[0] = client.ask("INCR", "counter")
    except OSError:
        pass


def check_keys(t, client):
    t.expect("DBSIZE", KEYS + 1, client.ask("DBSIZE"))
    for i in random.sample(range(KEYS), 500):
        value = client.ask("GET", f"sample:{i}")
        if value is None or not value.startswith(f"value:{i}"):
            t.fail(f"sample:{i}: seen {value!r}")
    t.checks += 500


def body(t):
    if not os.path.exists("/usr/bin/redis-server"):
        sandbox.skip("redis-server is not installed")
    pid = t.start(["/usr/bin/redis-server", "--port", str(PORT), "--save", "", "--dir", t.work,
                   "--enable-debug-command", "yes", "--appendonly", "no"], name="redis")
    client = t.until("the server answers", Client)
    client.ask("DEBUG", "POPULATE", KEYS, "sample", 24)
    client.ask("SET", "counter", 0)
    check_keys(t, client)

    report = t.dump(pid)
    t.note(f"left running: {report['bytes'] >> 20} MiB, frozen {report['frozen_us'] / 1000:.1f} ms")
    t.expect("a client does not notice", "PONG", client.ask("PING"))

    for keep in (False, True, False):
        acknowledged = [0]
        worker = threading.Thread(target=count_until_reset, args=(acknowledged,))
        worker.start()
        load = children.spawn(["/usr/bin/redis-benchmark", "-p", str(PORT), "-c", "20", "-n",
                               "100000000", "-t", "get", "-q"], out=t.path("benchmark.out"))
        t.until("increments are under way", lambda: acknowledged[0] > 200)
        report, again = t.round_trip(pid, *(["--tcp", "keep"] if keep else []))
        if keep:
            seen = acknowledged[0]
            t.until("the same connection goes on", lambda: acknowledged[0] > seen + 200)
            t.expect("redis-benchmark goes on", None, children.wait(load, 0.3))
            t.expect("another client's connection goes on", "PONG", client.ask("PING"))
        if keep or t.control:
            Client().ask("CLIENT", "KILL", "TYPE", "normal")
        children.wait(load, 10)
        worker.join(20)
        t.note(f"{report['bytes'] >> 20} MiB, frozen {report['frozen_us'] / 1000:.1f} ms, "
               f"dump {report['total_us'] / 1000:.0f} ms, "
               f"restore {again['total_us'] / 1000:.0f} ms")
        client = t.until("the server answers", Client)
        counter = int(client.ask("GET", "counter"))
        t.expect_true(f"counter {counter} is what was acknowledged ({acknowledged[0]}) or one more",
                      counter - acknowledged[0] in (0, 1))
        check_keys(t, client)
        client.ask("SET", "counter", 0)
    os.kill(pid, 15)
    t.expect("exit status", 0, children.wait(pid, 20))


trial.main(body)
