"""Clients of a server that counts, each with a connection that lives as long as it does, and what is
done to such a server. The servers (apps/programs/counting.*) know one request,

    POST /add?client=K&n=N  ->  200, "K N TOTAL"

and what else they say is a complaint: N was not the one after the last of K, so that a request
was lost or done twice; or their memory is not what they made it."""

import http.client
import os
import threading
import time

HOST = "127.0.0.1"


class Http:
    """A way to ask: another one has the same four functions."""

    def __init__(self, port):
        self.port = port

    def connect(self):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        connection.connect()
        return connection

    def ask(self, connection, client, n):
        """What is wrong with the answer, or None."""
        connection.request("POST", f"/add?client={client}&n={n}")
        answer = connection.getresponse().read().decode()
        return None if answer.split()[:2] == [client, str(n)] else repr(answer)

    def total(self):
        connection = self.connect()
        connection.request("POST", "/add?client=last&n=0")
        answer = connection.getresponse().read().decode().split()
        connection.close()
        return int(answer[2])


class Client(threading.Thread):
    def __init__(self, way, name):
        super().__init__(daemon=True)
        self.way, self.client = way, name
        self.acknowledged = 0
        self.error = None
        self.ended = False
        self.start()

    def ask(self, connection):
        n = self.acknowledged + 1
        try:
            wrong = self.way.ask(connection, self.client, n)
        except (OSError, http.client.HTTPException) as e:
            wrong = repr(e)
        if wrong:
            self.error = f"request {n}: {wrong}"
        else:
            self.acknowledged = n

    def run(self):
        connection = self.way.connect()
        while not self.ended and not self.error:
            self.ask(connection)
        connection.close()


class Caller(Client):
    """A connection for each request. Nobody listens for a while, but whoever got through is served."""

    def run(self):
        while not self.ended and not self.error:
            try:
                connection = self.way.connect()
            except OSError:
                time.sleep(0.01)
                continue
            self.ask(connection)
            connection.close()


class Clients:
    def __init__(self, t, way, many, name, callers=0):
        self.t = t
        self.all = [Client(way, f"{name}{i}") for i in range(many)]
        self.all += [Caller(way, f"caller{i}") for i in range(callers)]

    def flow(self, when):
        """Every one of them is served, by the connection that it had."""
        before = [c.acknowledged for c in self.all]
        self.t.until(f"{when}: everybody is served", timeout=30, seen=lambda: any(
            c.error for c in self.all) or all(c.acknowledged > b + 5 for c, b in zip(self.all, before)))
        self.t.expect(f"{when}: errors", [], [(c.client, c.error) for c in self.all if c.error])

    def acknowledged(self):
        return sum(c.acknowledged for c in self.all)

    def stop(self):
        for client in self.all:
            client.ended = True
        for client in self.all:
            client.join(40)

    def were_cut_off(self):
        for client in self.all:
            client.join(40)
            self.t.expect_true(f"{client.client} was told that its connection is gone ({client.error})",
                               client.error)


def is_up(way):
    try:
        return way.total() >= 0
    except (OSError, http.client.HTTPException):
        return False


def through_it(t, pid, way, many=6, before_cut=None):
    """Left running, twice killed and restored with the same connections, and once with none of them:
    whatever was acknowledged has been counted, once."""
    t.until("the server answers", lambda: is_up(way), 40)
    base = way.total()
    clients = Clients(t, way, many, "kept", callers=2)
    clients.flow("at first")
    report = t.dump(pid, "--tcp", "keep")
    t.note(f"{report['processes']} processes, {report['bytes'] >> 20} MiB, "
           f"frozen {report['frozen_us'] / 1000:.1f} ms")
    clients.flow("left running")
    for number in (1, 2):
        report, again = t.round_trip(pid, "--tcp", "keep")
        clients.flow(f"restored, {number}")
        notes = report.get("notes", []) + again.get("notes", [])
        t.expect(f"notes of round {number}", [], [note for note in notes if "held back" not in note])
    clients.stop()
    counted = base + clients.acknowledged()
    t.until(f"{counted} requests are counted ({way.total()})", lambda: way.total() == counted, 3)
    t.note(f"{clients.acknowledged()} requests")
    if before_cut:
        before_cut()
    if not t.control:
        cut_off(t, pid, way, many)


def cut_off(t, pid, way, many):
    base = way.total()
    clients = Clients(t, way, many, "cut")
    clients.flow("again")
    t.round_trip(pid)
    clients.were_cut_off()
    t.until("the server answers", lambda: is_up(way))
    time.sleep(0.1)
    counted = way.total() - base
    t.expect_true(f"counted {counted}: what was acknowledged ({clients.acknowledged()}), and at most what was "
                  "under way", 0 <= counted - clients.acknowledged() <= many)


def here(name):
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "apps", "programs", name)
