#!/usr/bin/python3
"""Copies of a filled Redis, each at a port of its own, beside the original: each has all keys, what is written into
one is in no other, and memory that nobody has written is there once."""

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT, KEYS, COPIES = 7900, 100_000, 5


def ask(port, *words):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        s.sendall((" ".join(map(str, words)) + "\r\n").encode())
        line = s.makefile("rb").readline().decode().strip()
        return line[1:]


def proportional(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def body(t):
    server = "/usr/bin/redis-server"
    if not os.path.exists(server):
        sandbox.skip("needs redis-server")
    pid = t.start([server, "--port", str(PORT), "--save", "", "--appendonly", "no", "--dir", t.work])
    t.until("Redis serves", lambda: ask(PORT, "PING") == "PONG")
    ask(PORT, "DEBUG", "POPULATE", KEYS)
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as s:
        for i in range(0, 1000):
            s.sendall(b"SET own:%d %d\r\n" % (i, i * i))
        lines = s.makefile("rb")
        for _ in range(1000):
            lines.readline()
    keys = ask(PORT, "DBSIZE")
    if t.control:
        return
    image = t.dump(pid)["image"]
    alone = proportional(pid)
    result = t.fsnap.run("restore", image, "--clones", COPIES, "--listen", f"{PORT}=791{{n}}", "--json")
    if not t.expect("copies", 0, result.status):
        t.note(str(result))
        return
    copies = result.json["clones"]
    ports = [int(x["listen"][0].split("=")[1]) for x in copies]
    t.expect("ports", [7910 + i for i in range(1, COPIES + 1)], ports)
    together = sum(proportional(x["pid"]) for x in copies)
    t.expect_true(f"memory is there once: {COPIES} copies {together} KiB, one alone {alone} KiB",
                  together < 1.2 * alone + 1024 * COPIES)
    for port in ports:
        t.expect("keys", keys, ask(port, "DBSIZE"))
        t.expect("written", "OK", ask(port, "SET", "whose", port))
    for port in ports:
        t.expect("its own", "4", ask(port, "STRLEN", "whose"))
        t.expect("counted", "1", ask(port, "INCR", f"only:{port}"))
        t.expect("keys now", str(int(keys) + 2), ask(port, "DBSIZE"))
    t.expect("the original's", keys, ask(PORT, "DBSIZE"))
    for each in [pid] + [x["pid"] for x in copies]:
        os.kill(each, signal.SIGKILL)
    children.wait_gone([x["pid"] for x in copies], 5)


trial.main(body)
