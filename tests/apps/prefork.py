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
import outside  # noqa: E402
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


def share(pids):
    """KiB the processes take in all: pages shared by n count a n-th in each (proc(5), smaps_rollup)."""
    return sum(int(outside.fields(f"/proc/{pid}/smaps_rollup", ("Pss_Anon",))["Pss_Anon"].split()[0])
               for pid in pids)


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
        taken = share(workers)
        t.round_trip(pid)
        t.expect("the same processes", workers, children.tree(pid))
        t.expect_true(f"memory is shared as before: {taken} KiB then, {share(workers)} now",
                      share(workers) <= taken * 1.1)
        ask_many(t, counts, 60)
    t.expect("answer to die", [], ask("die"))
    t.until("the parent replaces a dead worker",
            lambda: len(children.tree(pid)) == 17 and children.tree(pid) != workers)
    os.kill(pid, signal.SIGTERM)
    t.expect("exit status of the parent", 5, children.wait(pid, 10))


trial.main(body)
