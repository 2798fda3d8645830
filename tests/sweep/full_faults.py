#!/usr/bin/python3
"""One system call of fsnap fails, each in turn (FSNAP_SWEEP=full) or a sample of them, while the tree holds full
queues of every kind (programs/bag.py): after a dump nothing of it is missing, doubled or changed; after a restore that
failed the machine is as it was, to the last name; what does succeed is whole."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bag  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

POINTS, SECONDS = 40, 20


def each(t, total, loading):
    began = time.monotonic()
    for number in sweep.numbers(total, POINTS):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            return
        if number >= loading:
            yield number


def dumps(t, b, seen, loading):
    total = sweep.counted(t, "dump", "-t", b.pid, "--name", "counted")
    t.expect("after the counted dump", [], b.wrong())
    before = bag.machine(t)
    for number in each(t, total, loading):
        status, where = sweep.faulted(t, number, "dump", "-t", b.pid, "--name", "try")
        seen[status] = seen.get(status, 0) + 1
        t.fsnap.run("rm", "try")
        if not t.expect(f"{where} (status {status})", [], b.wrong()):
            b.start()
            before = bag.machine(t)
        t.expect(f"{where} (status {status}): left", [], bag.strange(t, before))


def restores(t, b, seen, loading):
    t.dump(b.pid, "--kill", "--name", "kept")
    total = sweep.counted(t, "restore", "kept", "-d")
    t.expect("after the counted restore", [], b.wrong())
    b.end()
    b.remove_names()
    before = bag.machine(t)
    for number in each(t, total, loading):
        status, where = sweep.faulted(t, number, "restore", "kept", "-d")
        seen[status] = seen.get(status, 0) + 1
        if status == 0:
            told = "could not be delivered again" in sweep.tell(t)  # UDP does not promise more
            t.expect(f"{where}: what was restored", [], [x for x in b.wrong() if not (told and x.startswith("Udp:"))])
            b.end()
            b.remove_names()
        if not t.expect(f"{where} (status {status}): left", [], bag.strange(t, before)):
            b.end()
            b.remove_names()
    t.restore("kept")
    t.expect("restored at the end", [], b.wrong())


def body(t):
    t.note(f"seed {sweep.seed()}")
    b = bag.Bag(t)
    b.start()
    statuses = {"dump": {}, "restore": {}}
    loading = sweep.counted(t, "--version")  # all it does besides is the dynamic linker's
    dumps(t, b, statuses["dump"], loading)
    restores(t, b, statuses["restore"], loading)
    t.note(f"exit statuses: {statuses}")


trial.main(body, 7200 if sweep.FULL else 280)
