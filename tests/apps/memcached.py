#!/usr/bin/python3
"""memcached with four threads under load: clients that increment, and look for values of some KiB.
Connections are kept, or reset; no increment that was answered is lost or done twice."""

import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import counting  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT, VALUES = 8004, 2000


def value(i):
    return (f"value{i} " * 1000)[:500 + 3 * i].encode()


class Connection:
    def __init__(self):
        self.socket = socket.create_connection((counting.HOST, PORT), timeout=30)
        self.lines = self.socket.makefile("rb")

    def ask(self, text):
        self.socket.sendall(text + b"\r\n")
        line = self.lines.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("end of file")
        return line[:-2]

    def get(self, key):
        words = self.ask(b"get " + key).split()
        found = self.lines.read(int(words[3]) + 2)[:-2] if words[0] == b"VALUE" else None
        return found if found is None or self.lines.readline() == b"END\r\n" else None

    def close(self):
        self.lines.close()
        self.socket.close()


class Memcached:
    def connect(self):
        return Connection()

    def ask(self, connection, client, n):
        if n == 1:
            connection.ask(f"set {client} 0 0 1\r\n0".encode())
        answer = connection.ask(f"incr {client} 1".encode())
        if answer != str(n).encode():
            return repr(answer)
        if not connection.ask(b"incr total 1").isdigit():
            return "no total"
        i = n % VALUES
        return None if connection.get(f"value{i}".encode()) == value(i) else f"value{i} is another"

    def total(self):
        connection = Connection()
        found = connection.get(b"total")
        connection.close()
        return int(found or 0)


def body(t):
    if not os.path.exists("/usr/bin/memcached"):
        sandbox.skip("memcached is not installed")
    pid = t.start(["/usr/bin/memcached", "-u", "nobody", "-l", counting.HOST, "-p", str(PORT), "-t", "4"])
    way = Memcached()
    connection = t.until("the server answers", way.connect)
    for i in range(VALUES):
        connection.ask(f"set value{i} 0 0 {len(value(i))}\r\n".encode() + value(i))
    connection.ask(b"set total 0 0 1\r\n0")
    connection.close()
    counting.through_it(t, pid, way)
    connection = way.connect()
    t.expect("all values", [], [i for i in range(VALUES) if connection.get(f"value{i}".encode()) != value(i)])
    os.kill(pid, 15)
    t.expect("exit status", 0, children.wait(pid, 20))


trial.main(body)
