#!/usr/bin/python3
"""A static musl binary, an epoll service: its count of requests and its timer go on after each of
three restores, and it ends as it should."""

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT = 7071


def ask():
    with socket.create_connection(("127.0.0.1", PORT), timeout=5) as s:
        s.sendall(b"count\n")
        return [int(x) for x in s.makefile().readline().split()]


def body(t):
    binary = os.path.join(t.helpers, "service_static")
    if not os.path.exists(binary):
        sandbox.skip("musl-gcc is not installed: there is no static binary")
    pid = t.start([binary, str(PORT)], ready="ready")
    for number in range(1, 11):
        t.expect("requests", number, ask()[0])
    t.dump(pid)
    t.expect("requests", 11, ask()[0])
    for _ in range(3):
        before, ticks = ask()
        t.round_trip(pid)
        t.expect("requests", before + 1, ask()[0])
        t.until("the timer ticks on", lambda: ask()[1] > ticks, 5)
    os.kill(pid, signal.SIGTERM)
    t.expect("exit status", 6, children.wait(pid, 10))


trial.main(body)
