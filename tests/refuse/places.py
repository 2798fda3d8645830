#!/usr/bin/python3
"""Restores that find their place taken or changed: PIDs in use, a file gone or changed, an address
bound by somebody else. Each is refused by name and leaves nothing behind; once the reason is gone,
the same image restores."""

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_RESTORE  # noqa: E402


def refused(t, image, codes, *words):
    before = set(os.listdir("/proc"))
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json"), 1, codes, *words)
    t.expect_error(t.fsnap.run("restore", image, "--json"), EXIT_RESTORE, codes, *words)
    children.reap()
    left = [p for p in set(os.listdir("/proc")) - before if p.isdigit()]
    t.expect(f"{codes}: processes left", [], left)


def pids(t):
    pid = holder.start(t, "nothing")
    image = t.dump(pid)["image"]
    refused(t, image, "PID_TAKEN", pid)
    holder.expect_well(t, pid, "a restore beside it")
    holder.stop(pid)
    t.restore(image)
    holder.expect_well(t, pid, "restoring once the PID is free")
    holder.stop(pid)


def files(t):
    script = 'exec 5>>data 6<input; read x <&6; echo one >&5; echo > ready; while :; do sleep 0.01; done'
    with open(t.path("input"), "w") as f:
        f.write("first line\nsecond line\n" * 100)
    os.path.exists(t.path("ready")) and os.unlink(t.path("ready"))
    pid = t.start(["/bin/bash", "-c", script], ready="ready")
    image = t.dump(pid, "--kill")["image"]
    os.rename(t.path("input"), t.path("elsewhere"))
    refused(t, image, "FILE_MISSING", t.path("input"))
    with open(t.path("input"), "w") as f:
        f.write("short\n")
    refused(t, image, ("FILE_CHANGED", "FILE_MISSING"), t.path("input"))
    os.unlink(t.path("input"))
    os.rename(t.path("elsewhere"), t.path("input"))
    t.restore(image)
    t.expect_true("it runs once the file is back", os.path.exists(f"/proc/{pid}"))
    holder.stop(pid)


def addresses(t):
    program = ("import socket,time; s=socket.create_server(('127.0.0.1',7777)); "
               "open('listening','w'); [c[0].close() for c in iter(s.accept, None)]")
    pid = t.start(["/usr/bin/python3", "-c", program], ready="listening")
    image = t.dump(pid, "--kill")["image"]
    with socket.create_server(("127.0.0.1", 7777)):
        refused(t, image, "ADDRESS_TAKEN", "7777")
    t.restore(image)
    socket.create_connection(("127.0.0.1", 7777), timeout=5).close()
    os.kill(pid, signal.SIGKILL)
    children.wait(pid, 5)


def body(t):
    pids(t)
    files(t)
    addresses(t)


trial.main(body)
