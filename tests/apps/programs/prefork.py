"""A preforking server: the parent keeps 16 workers alive, all accept on one socket. A worker
answers each line with its PID and how many it has answered; "die" makes it exit."""

import os
import signal
import socket
import sys

WORKERS = 16


def work(listener):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answered = 0
    while True:
        client, _ = listener.accept()
        with client, client.makefile("rw") as lines:
            for line in lines:
                if line == "die\n":
                    os._exit(3)
                answered += 1
                lines.write(f"{os.getpid()} {answered} {line}")
                lines.flush()


def fork_worker(listener):
    pid = os.fork()
    if pid == 0:
        work(listener)
    return pid


def main():
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
    workers = {fork_worker(listener) for _ in range(WORKERS)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    with open("ready", "w") as f:
        f.write("ready\n")
    while True:
        pid, _ = os.wait()
        workers.discard(pid)
        workers.add(fork_worker(listener))


main()
