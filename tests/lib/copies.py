"""A program of which copies are made, and what one may ask it."""

import contextlib
import os
import signal
import socket

import children

# A child, two threads, a listener. Whoever connects is told who it is, and whether all of it is at work.
PROGRAM = """
import os, socket, sys, threading, time
counts = [0, 0]
def count(i):
    while True:
        counts[i] += 1
        time.sleep(0.002)
ours, theirs = socket.socketpair()
if os.fork() == 0:
    while theirs.recv(1):
        theirs.send(b"%d %d" % (os.getpid(), os.getppid()))
    os._exit(0)
for i in range(2):
    threading.Thread(target=count, args=(i,), daemon=True).start()
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
while min(counts) < 5:
    time.sleep(0.01)
secret = os.urandom(8).hex()
open("ready", "w").close()
while True:
    client, _ = listener.accept()
    before = list(counts)
    time.sleep(0.02)
    ours.send(b"?")
    child, parent = ours.recv(100).split()
    works = all(a < b for a, b in zip(before, counts)) and int(parent) == os.getpid()
    client.sendall(("%d %d %s %s %s" % (os.getpid(), int(child), secret, works, os.getcwd())).encode())
    client.close()
"""


def ask(port):
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        pid, child, secret, works, cwd = s.makefile().read().split()
    return int(pid), int(child), secret, works == "True", cwd


def end(copies):
    for copy in copies:
        for pid in children.tree(copy["pid"]):
            with contextlib.suppress(ProcessLookupError):  # a shell's sleep may have ended
                os.kill(pid, signal.SIGKILL)
    children.wait_gone([x["pid"] for x in copies], 5)
