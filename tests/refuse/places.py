#!/usr/bin/python3
"""Restores that find their place taken or changed: PIDs in use, a file gone or changed, an address
bound by somebody else. Each is refused by name and leaves nothing behind; once the reason is gone,
the same image restores."""

import os
import shutil
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


def queues_of_the_original(t):
    """The original runs on and has emptied its queues since: a restore that is refused puts nothing into them."""
    program = ("import os,sys,time; os.mkfifo('fifo'); f=os.open('fifo',os.O_RDWR|os.O_NONBLOCK); os.write(f,b'old'); "
               "open('written','w'); time.sleep(1000)")
    pid = t.start(["/usr/bin/python3", "-c", program], ready="written")
    image = t.dump(pid)["image"]
    fifo = os.open(t.path("fifo"), os.O_RDWR | os.O_NONBLOCK)
    t.expect("what was in the FIFO", b"old", os.read(fifo, 100))
    refused(t, image, "PID_TAKEN", pid)
    try:
        t.fail(f"a refused restore has put {os.read(fifo, 100)!r} into the FIFO of the original")
    except BlockingIOError:
        t.checks += 1
    os.close(fifo)
    os.kill(pid, signal.SIGKILL)
    children.wait(pid, 5)


def files(t):
    """A program of its own, with a file it has open and a file it has mapped."""
    shutil.copy("/usr/bin/tail", t.path("program"))
    with open(t.path("input"), "w") as f:
        f.write("a line\n" * 100)
    pid = t.start([t.path("program"), "-n", "1", "-s", "0.1", "---disable-inotify", "-f",
                   t.path("input")], name="tail")
    t.until("it shows the last line", lambda: os.path.getsize(t.path("tail.out")))
    image = t.dump(pid, "--kill")["image"]
    for name in ("input", "program"):
        os.rename(t.path(name), t.path("elsewhere"))
        refused(t, image, "FILE_MISSING", t.path(name))
        os.rename(t.path("elsewhere"), t.path(name))
    # Half of a program from one file and half from another is no program.
    os.rename(t.path("program"), t.path("elsewhere"))
    shutil.copy("/usr/bin/head", t.path("program"))
    refused(t, image, "FILE_CHANGED", t.path("program"))
    os.rename(t.path("elsewhere"), t.path("program"))
    t.restore(image)
    with open(t.path("input"), "a") as f:
        f.write("another line\n")
    t.until("it goes on once the files are back",
            lambda: "another line" in open(t.path("tail.out")).read(), 5)
    os.kill(pid, signal.SIGKILL)
    children.wait(pid, 5)


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
    queues_of_the_original(t)
    files(t)
    addresses(t)


trial.main(body)
