#!/usr/bin/python3
"""Restores beside each other, and restores that are only explained. While one restores a tree (sweep/programs/bag.py), a
second one is told who it is, and touches nothing; when it has gone, even by SIGKILL, another may. --explain makes nothing
that others could see, and is in nobody's way: it explains what could not be made now. A kernel thread is no program."""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bag  # noqa: E402
import children  # noqa: E402
import sysv  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_REFUSED  # noqa: E402

GENERAL = 1
PF_KTHREAD = 0x200000
IN_MODIFY, IN_ATTRIB, IN_CREATE, IN_DELETE = 2, 4, 0x100, 0x200
libc = ctypes.CDLL(None, use_errno=True)


def lock_held():
    return any("@fsnap-restore-" in line for line in bag.read("/proc/net/unix").splitlines())


def caught_restoring(t, far_enough=lock_held):
    """A restore that has come so far, and was stopped before it came to its end."""
    for _ in range(20):
        handle = t.fsnap.start("restore", "kept", "-d", "--json")
        while not far_enough() and os.path.exists(f"/proc/{handle[0]}") and not gone(handle[0]):
            pass
        with contextlib.suppress(ProcessLookupError):
            os.kill(handle[0], signal.SIGSTOP)
            time.sleep(0.01)
        if far_enough() and lock_held():
            return handle
        with contextlib.suppress(ProcessLookupError):
            os.kill(handle[0], signal.SIGCONT)
        t.fsnap.finish(handle)
        t.bag.end()
        t.bag.remove_names()
    raise trial.Stop("every restore was too quick")


def gone(pid):
    return open(f"/proc/{pid}/stat", encoding="ascii").read().split()[-50] in "ZX"


def two_at_once(t):
    first = caught_restoring(t)
    before = bag.machine(t)
    second = t.fsnap.run("restore", "kept", "-d", "--json")
    t.expect_error(second, GENERAL, "PID_TAKEN", "restored by process", first[0])
    t.expect("the second one has changed nothing", [], sorted(bag.machine(t) ^ before))
    os.kill(first[0], signal.SIGCONT)
    t.expect("the first one", 0, t.fsnap.finish(first).status)
    t.expect("what it restored", [], t.bag.wrong())
    t.bag.end()
    t.bag.remove_names()
    first = caught_restoring(t)
    os.kill(first[0], signal.SIGKILL)
    t.fsnap.finish(first)
    children.wait_gone([p for p in bag.processes() if p != t.bag.pid], 2)
    t.bag.remove_names()
    t.expect("after a restore that was killed", 0, t.fsnap.run("restore", "kept", "-d").status)
    t.expect("what that restored", [], t.bag.wrong())
    t.bag.end()
    t.bag.remove_names()


def killed_half_way(t):
    """Message queues, System V objects, a device, names of sockets: the guard takes back what was made so far."""
    def made():
        return sysv.objects("shm") and sysv.objects("msg")
    before = bag.machine(t)
    first = caught_restoring(t, made)
    t.expect_true("something is made", len(bag.machine(t) - before) > 5)
    os.kill(first[0], signal.SIGKILL)
    t.fsnap.finish(first)
    t.expect("left by a restore that was killed", [], bag.strange(t, before))
    t.expect("the next one", 0, t.fsnap.run("restore", "kept", "-d").status)
    t.expect("what that restored", [], t.bag.wrong())
    t.bag.end()
    t.bag.remove_names()


def watch(*directories):
    fd = libc.inotify_init1(os.O_NONBLOCK)
    for directory in directories:
        assert libc.inotify_add_watch(fd, directory.encode(), IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE) >= 0
    return fd


def seen(fd):
    with contextlib.suppress(BlockingIOError):
        data, names = os.read(fd, 65536), []
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            names.append(f"{mask:x} {data[16:16 + length].rstrip(bytes(1)).decode()}")
            data = data[16 + length:]
        return names
    return []


def explained(t):
    notify = watch(t.work, t.bag.queues, "/dev/pts", "/dev/shm")
    before = bag.machine(t)
    result = t.fsnap.run("restore", "kept", "--explain")
    t.expect("--explain", (0, True), (result.status, "plain" in result.out))
    t.expect("what others saw of it", [], seen(notify))
    t.expect("left by it", [], sorted(bag.machine(t) ^ before))
    with socket.socket(socket.AF_INET) as taken, socket.socket(socket.AF_UNIX) as name:
        taken.bind(("127.0.0.1", 7001))
        taken.listen()
        name.bind("\0bag")
        result = t.fsnap.run("restore", "kept", "--explain")
        t.expect("--explain, when addresses are taken", (0, ""), (result.status, result.err))


def holder_of(pid, name):
    """The number of the descriptor that is bound to this abstract name."""
    inodes = [line.split()[6] for line in bag.read("/proc/net/unix").splitlines() if line.endswith(f" @{name}")]
    for fd in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
        if os.readlink(f"/proc/{pid}/fd/{fd}") in [f"socket:[{inode}]" for inode in inodes]:
            return fd
    return None


def name_taken(t, fd):
    """Of many sockets that are made together, the error is about the one that could not be."""
    with socket.socket(socket.AF_UNIX) as name:
        name.bind("\0bag")
        t.expect_error(t.fsnap.run("restore", "kept", "-d", "--json"), GENERAL, "ADDRESS_TAKEN", "@bag",
                       f"descriptor {fd} (")


def dump_kernel_thread():
    """Outside of the sandbox, where there are some: (number, what fsnap says), or None."""
    threads = []
    for pid in (x for x in os.listdir("/proc") if x.isdigit() and int(x) > 1):
        with contextlib.suppress(OSError):
            if int(bag.read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[6]) & PF_KTHREAD:
                threads.append(int(pid))
    if not threads or "--build" not in sys.argv:
        return None
    build = sys.argv[sys.argv.index("--build") + 1]
    with tempfile.TemporaryDirectory() as store:
        return threads[0], subprocess.run([os.path.join(build, "fsnap"), "--store", store, "dump", "-t",
                                           str(threads[0])], capture_output=True, text=True, check=False)


def kernel_thread(t, told):
    if not told:
        t.note("no kernel thread can be seen here")
        return
    t.expect("dump of a kernel thread: exit status", EXIT_REFUSED, told[1].returncode)
    for word in (f"process {told[0]} (", "is a kernel thread", "hint:"):
        t.expect_true(f"dump of a kernel thread: {word!r} in {told[1].stderr!r}", word in told[1].stderr)


def body(t):
    t.bag = b = bag.Bag(t)
    b.start()
    named = holder_of(b.pid, "bag")
    t.dump(b.pid, "--kill", "--name", "kept")
    b.forget()
    b.remove_names()
    explained(t)
    name_taken(t, named)
    two_at_once(t)
    killed_half_way(t)
    kernel_thread(t, TOLD)


TOLD = dump_kernel_thread()
trial.main(body)
