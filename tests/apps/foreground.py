#!/usr/bin/python3
"""`fsnap restore` in the foreground stands in for the tree: it ends with the tree's exit status or
signal, hands on the signals it gets, and leaves nothing behind; -d prints the PID and leaves."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

SCRIPT = """
trap 'echo term; exit 7' TERM
trap 'echo usr1 >> usr1' USR1
trap 'kill -9 $$' USR2
trap 'exit 3' HUP
: > ready
while :; do sleep 0.02; done
"""


def start_foreground(t, image, pid):
    handle = t.fsnap.start("restore", image)
    t.until("the tree runs under fsnap",
            lambda: pid in children.tree(handle[0]) and
            "TracerPid:\t0" in open(f"/proc/{pid}/status").read())
    time.sleep(0.05)
    return handle


def body(t):
    if t.control:
        sandbox.skip("is about fsnap only")
    pid = t.start(["/bin/bash", "-c", SCRIPT], ready="ready")
    image = t.dump(pid, "--kill")["image"]
    for number, expected in ((signal.SIGTERM, (7,)), (signal.SIGHUP, (3,)),
                             (signal.SIGUSR2, (-9, 137))):
        handle = start_foreground(t, image, pid)
        os.kill(handle[0], signal.SIGUSR1)
        t.until("SIGUSR1 is handed on", lambda: os.path.exists(t.path("usr1")), 5)
        os.unlink(t.path("usr1"))
        os.kill(handle[0], number)
        result = t.fsnap.finish(handle, 10)
        t.expect_true(f"exit status after signal {number}: {result.status} is one of {expected}",
                      result.status in expected)
        t.expect("nothing is left", [], children.wait_gone([pid], 3))
    result = t.fsnap.run("restore", image, "-d")
    t.expect("restore -d: exit status", 0, result.status)
    t.expect("restore -d prints the PID", f"{pid}\n", result.out)
    os.kill(pid, signal.SIGTERM)
    t.expect("its exit status", 7, children.wait(pid, 5))


trial.main(body)
