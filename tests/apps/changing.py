#!/usr/bin/python3
"""A program that writes, renames and removes files that it has mapped, all the time: an image describes them
as they are while it stands still, not as they were when fsnap began to look."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import trial  # noqa: E402

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "changing.py")


def body(t):
    top = t.path("files")
    os.mkdir(top)
    pid = t.start(["/usr/bin/python3", PROGRAM, top])

    def count():
        with open(os.path.join(top, "count"), encoding="ascii") as f:
            return int(f.read() or 0)
    t.until("it is at work", lambda: count() > 0)
    for number in range(1, 7):
        report, again = t.round_trip(pid)
        t.expect(f"what has changed since the dump, {number}", [],
                 [note for note in report.get("notes", []) + again.get("notes", []) if "changed" in note])
        before = count()
        t.until(f"it goes on, {number}", lambda: count() > before)
    with open(t.path("target.out"), encoding="utf-8") as f:
        t.expect("what it saw", "", f.read())
    os.kill(pid, 9)


trial.main(body)
