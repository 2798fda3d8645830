#!/usr/bin/python3
"""Restores of a tree that holds a little of everything (sweep/programs/bag.py) where one thing of it cannot be had:
taken, changed, missing, not allowed, too little. Each is refused with what it was and a hint, with its exit status;
the machine is as it was before, to the last name; and when the obstacle has gone, the image restores whole."""

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bag  # noqa: E402
import children  # noqa: E402
import sandbox  # noqa: E402
import sysv  # noqa: E402
import trial  # noqa: E402
from sysv import libc  # noqa: E402

KEY = 0x5eed2000
GENERAL = 1
EXCLUSIVE = 0o3000
ONLY = os.environ.get("FSNAP_OBSTACLES", "").split()
NOT = os.environ.get("FSNAP_NOT_OBSTACLES", "").split(",")  # by name: tests/Checked.cmake


def setting(path, value):
    """A number of /proc/sys, while it lasts."""
    @contextlib.contextmanager
    def change(_t):
        with open(path, encoding="ascii") as f:
            old = f.read().strip()
        with open(path, "w", encoding="ascii") as f:
            f.write(str(value))
        try:
            yield
        finally:
            with open(path, "w", encoding="ascii") as f:
                f.write(old)
    return change


def bound(family, kind, address):
    @contextlib.contextmanager
    def hold(_t):
        with socket.socket(family, kind) as s:
            s.bind(address)
            if kind == socket.SOCK_STREAM:
                s.listen()
            yield
        if isinstance(address, str) and address[0] != "\0":
            os.unlink(address)
    return hold


def in_work(make):
    """An obstacle made in the work directory, where relative names of the bag start from."""
    @contextlib.contextmanager
    def there(t):
        old = os.getcwd()
        os.chdir(t.work)
        try:
            with make(t):
                yield
        finally:
            os.chdir(old)
    return there


def renamed(name, instead=None):
    """`name` is gone; or what instead() makes of it is there."""
    @contextlib.contextmanager
    def away(t):
        path = t.path(name)
        os.rename(path, path + ".away")
        if instead:
            instead(path)
        try:
            yield
        finally:
            if instead:
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            os.rename(path + ".away", path)
    return away


@contextlib.contextmanager
def other_mqueue(t):
    """Another queue of that name, with a size of its own."""
    libc.mq_open(b"/bag", os.O_RDWR | os.O_CREAT, 0o600, struct.pack("8q", 0, 3, 77, 0, 0, 0, 0, 0))
    yield
    libc.mq_unlink(b"/bag")


def other_object(make, remove):
    @contextlib.contextmanager
    def there(_t):
        number = make()
        assert number >= 0
        yield
        remove(number)
    return there


@contextlib.contextmanager
def tun_taken(_t):
    with open("/dev/net/tun", "r+b", buffering=0) as f:
        fcntl.ioctl(f, 0x400454ca, struct.pack("16sH22x", b"bag0", 0x1001))
        yield


@contextlib.contextmanager
def dummy_device(_t):
    """A device of that name that is none of tun(4)."""
    subprocess.run(["ip", "link", "add", "bag0", "type", "veth", "peer", "name", "bag1"], check=True)
    yield
    subprocess.run(["ip", "link", "del", "bag0"], check=True)


@contextlib.contextmanager
def pid_taken(t):
    with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as f:
        f.write(str(t.bag.pid - 1))
    pid = children.spawn(["/usr/bin/sleep", "1000"])
    assert pid == t.bag.pid, (pid, t.bag.pid)
    t.until("it sleeps", lambda: bag.read(f"/proc/{pid}/comm").strip() == "sleep")
    yield
    os.kill(pid, signal.SIGKILL)
    children.wait(pid, 5)
    children.statuses.clear()


@contextlib.contextmanager
def read_only(t):
    """Where its files are, nothing can be written; but fsnap's own output can."""
    sandbox.mount(t.work, t.work, "none", sandbox.MS_BIND)
    sandbox.mount(t.fsnap.work, t.fsnap.work, "none", sandbox.MS_BIND)
    sandbox.mount("none", t.work, "none", sandbox.MS_BIND | 0x20 | 1)
    try:
        yield
    finally:
        libc.umount2(t.fsnap.work.encode(), 2)
        libc.umount2(t.work.encode(), 2)


def limit(which, value):
    @contextlib.contextmanager
    def low(t):
        t.before = lambda: resource.setrlimit(which, (value, value))
        yield
        t.before = None
    return low


def at(name):
    return lambda path: open(path, "w").close() if name == "file" else os.mkdir(path)


# name: (obstacle, exit statuses it may have, words of the message)
OBSTACLES = {
    "tcp port": (bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 7001)), GENERAL, ["7001"]),
    "tcp6 port": (bound(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 7002)), GENERAL, ["7002"]),
    "udp port": (bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 7003)), GENERAL, ["7003"]),
    "abstract name": (bound(socket.AF_UNIX, socket.SOCK_STREAM, "\0bag"), GENERAL, ["bag"]),
    "socket's file": (in_work(bound(socket.AF_UNIX, socket.SOCK_STREAM, "bag.listener")), GENERAL, ["bag.listener"]),
    "other mqueue": (other_mqueue, GENERAL, ["/bag"]),
    "shm key": (other_object(lambda: libc.shmget(KEY, 4096, EXCLUSIVE | 0o600),
                             lambda n: libc.shmctl(n, 0, None)), GENERAL, ["shared memory"]),
    "sem key": (other_object(lambda: libc.semget(KEY, 1, EXCLUSIVE | 0o600),
                             lambda n: libc.semctl(n, 0, 0)), GENERAL, ["semaphore"]),
    "msg key": (other_object(lambda: libc.msgget(KEY, EXCLUSIVE | 0o600),
                             lambda n: libc.msgctl(n, 0, None)), GENERAL, ["message queue"]),
    "tun device taken": (tun_taken, GENERAL, ["bag0"]),
    "other device": (dummy_device, GENERAL, ["bag0"]),
    "pid": (pid_taken, GENERAL, ["in use"]),
    "file gone": (renamed("plain"), GENERAL, ["plain"]),
    "leased file gone": (renamed("leased"), GENERAL, ["leased"]),
    "fifo gone": (renamed("fifo"), GENERAL, ["fifo"]),
    "fifo is a file": (renamed("fifo", at("file")), GENERAL, ["fifo"]),
    "fifo is a directory": (renamed("fifo", at("directory")), GENERAL, ["fifo"]),
    "file is a directory": (renamed("plain", at("directory")), GENERAL, ["plain"]),
    "watched gone": (renamed("watched"), GENERAL, ["watched"]),
    "no more watches": (setting("/proc/sys/fs/inotify/max_user_watches", 0), GENERAL, ["inotify"]),
    "no inotify": (setting("/proc/sys/fs/inotify/max_user_instances", 0), GENERAL, ["inotify"]),
    "short inotify queue": (setting("/proc/sys/fs/inotify/max_queued_events", 2), GENERAL, ["max_queued_events"]),
    "read-only": (read_only, GENERAL, []),
    "no shm": (setting("/proc/sys/kernel/shmmni", 0), GENERAL, ["shared memory"]),
    "small shm": (setting("/proc/sys/kernel/shmmax", 100), GENERAL, ["shared memory"]),
    "no msg": (setting("/proc/sys/kernel/msgmni", 0), GENERAL, ["message queue"]),
    "no sem": (setting("/proc/sys/kernel/sem", "250 32000 32 0"), GENERAL, ["semaphore"]),
    "no uring": (setting("/proc/sys/kernel/io_uring_disabled", 2), GENERAL, ["io_uring"]),
    "no leases": (setting("/proc/sys/fs/leases-enable", 0), GENERAL, ["lease"]),
    "no aio": (setting("/proc/sys/fs/aio-max-nr", 0), GENERAL, ["asynchronous"]),
    "few descriptors": (limit(resource.RLIMIT_NOFILE, 30), GENERAL, []),
    "small files": (limit(resource.RLIMIT_FSIZE, 4096), GENERAL, []),
    "little memory": (limit(resource.RLIMIT_AS, 60 << 20), GENERAL, []),
}


def one(t, name, obstacle, status, words):
    t.before = None
    with obstacle(t):
        before = bag.machine(t)
        result = t.fsnap.run("restore", "kept", "-d", "--json", before=t.before)
        if result.status == 0:
            t.note(f"{name}: restored all the same: {result.json.get('notes')}")
        else:
            t.expect_error(result, status, result.code, *words)
            t.note(f"{name}: {result.status} {result.code}: {result.message} | {result.hint}")
        if result.status == 0:
            wrong = t.bag.wrong()
            if wrong:
                t.note(f"   {wrong}")
            t.bag.end()
            t.bag.remove_names()
        else:
            children.wait_gone([p for p in bag.processes() if p != t.bag.pid], 1)  # helpers that are going
            t.expect(f"{name}: left behind", [], sorted(bag.machine(t) ^ before))
    for end in [p for p in bag.processes()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(end, signal.SIGKILL)
    t.bag.remove_names()


def body(t):
    t.bag = b = bag.Bag(t)
    b.start()
    t.expect("before anything", [], b.wrong())
    t.dump(b.pid, "--kill", "--name", "kept")
    b.forget()
    b.remove_names()
    for name, (obstacle, status, words) in OBSTACLES.items():
        if name not in NOT and (not ONLY or name in ONLY):
            one(t, name, obstacle, status, words)
    t.restore("kept")
    t.expect("when there is no obstacle", [], b.wrong())


trial.main(body)
