#!/usr/bin/python3
"""Both ends of TCP connections that say all the time what the other can check: 8-byte numbers counting
up from 0, in both directions, until the file `stop` exists; then each end says how much it was.

    traffic.py serve PORT            every connection, IPv4 and IPv6
    traffic.py call NAME HOST PORT   one connection

Each connection writes NAME.sent and NAME.got (bytes) when its directions have ended well, or NAME.error.
"""

import array
import os
import random
import socket
import sys
import threading
import time

BLOCK = 512


def numbers(first, n):
    return array.array("Q", range(first, first + n)).tobytes()


def note(name, text):
    with open(name + ".new", "w") as f:
        f.write(str(text))
    os.rename(name + ".new", name)


def send(s, name):
    try:
        first = 0
        while not os.path.exists("stop"):
            n = random.choice((1, 16, BLOCK, 16 * BLOCK))
            s.sendall(numbers(first, n))
            first += n
            time.sleep(random.choice((0, 0.001, 0.004)))
        s.shutdown(socket.SHUT_WR)
        note(name + ".sent", first * 8)
    except OSError as e:
        note(name + ".error", f"sending: {e}")


def receive(s, name, lazy):
    got, left = 0, b""
    try:
        while data := s.recv(1 << 16):
            left += data
            n = len(left) // 8
            if left[:n * 8] != numbers(got // 8, n):
                note(name + ".error", f"bytes {got}...{got + n * 8} are not what was sent")
                return
            got += n * 8
            left = left[n * 8:]
            note(name + ".progress", got)
            if lazy:
                time.sleep(0.02)
        note(name + ".got", got + len(left))
    except OSError as e:
        note(name + ".error", f"receiving: {e}")


def run(s, name, lazy=False):
    threads = [threading.Thread(target=send, args=(s, name)),
               threading.Thread(target=receive, args=(s, name, lazy))]
    for thread in threads:
        thread.start()
    return threads


def serve(port):
    s = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    note("listening", port)
    while True:
        connection, _ = s.accept()
        name = b""
        while not name.endswith(b"\n"):
            name += connection.recv(1)
        name = name.decode().strip()
        run(connection, "server-" + name, lazy="lazy" in name)


def call(name, host, port):
    while True:
        try:
            s = socket.create_connection((host, port), timeout=1)
            break
        except OSError:
            time.sleep(0.02)
    s.settimeout(None)
    s.sendall(name.encode() + b"\n")
    for thread in run(s, "client-" + name, lazy="lazy" in name):
        thread.join()


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    call(sys.argv[2], sys.argv[3], int(sys.argv[4]))
