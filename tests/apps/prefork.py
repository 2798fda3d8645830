#!/usr/bin/python3
"""A preforking server with sixteen workers: serves before the dump, while a dump lets it run, and
after death and restore, with the same workers in the same state; the parent still replaces one
that dies."""

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

PORT = 7070
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "prefork.py")


def ask(text):
    with socket.create_connection(("127.0.0.1", PORT), timeout=5) as s:
        s.sendall(text.encode() + b"\n")
        return s.makefile().readline().split()


def ask_many(t, counts, times):
    """Each worker counts its answers: nobody starts anew, nobody skips."""
    for i in range(times):
        pid, count, echo = ask(f"request{i}")
        counts[pid] = counts.get(pid, 0) + 1
        t.expect(f"answers of worker {pid}", counts[pid], int(count))
        t.expect("the answer is to this request", f"request{i}", echo)


def body(t):
    pid = t.start(["/usr/bin/python3", PROGRAM, str(PORT)], ready="ready")
    workers = children.tree(pid)
    t.expect("processes", 17, len(workers))
    counts = {}
    ask_many(t, counts, 60)
    report = t.dump(pid)
    t.expect("processes in the image", 17, report["processes"])
    ask_many(t, counts, 60)
    for _ in range(2):
        t.round_trip(pid)
        t.expect("the same processes", workers, children.tree(pid))
        ask_many(t, counts, 60)
    t.expect("answer to die", [], ask("die"))
    t.until("the parent replaces a dead worker",
            lambda: len(children.tree(pid)) == 17 and children.tree(pid) != workers)
    os.kill(pid, signal.SIGTERM)
    t.expect("exit status of the parent", 5, children.wait(pid, 10))


trial.main(body)
