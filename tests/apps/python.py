#!/usr/bin/python3
"""A Python program with four threads in the middle of a computation, dumped while it runs on and
killed and restored several times: its result is that of a run nobody interrupted."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "compute.py")
STEPS = "40000"


def read(path):
    with open(path) as f:
        return f.read()


def body(t):
    calm = t.start(["/usr/bin/python3", PROGRAM, STEPS], ready="ready", name="calm")
    t.expect("exit status of the calm run", 0, children.wait(calm, 120))
    expected = read(t.path("answer"))
    os.unlink(t.path("answer"))
    os.unlink(t.path("ready"))
    pid = t.start(["/usr/bin/python3", PROGRAM, STEPS], ready="ready")
    for _ in range(3):
        time.sleep(0.1)
        t.dump(pid)
        time.sleep(0.1)
        t.expect("not finished before it was interrupted", False, os.path.exists(t.path("answer")))
        t.round_trip(pid)
    t.expect("exit status", 0, children.wait(pid, 120))
    t.expect("result", expected, read(t.path("answer")))


trial.main(body)
