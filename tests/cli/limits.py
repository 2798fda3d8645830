#!/usr/bin/python3
"""Limits are looked at before the first copy is made: each of them, when it has no room for so many, is named with what
is left of it and with what raises it, and nothing was made. Of what is the machine's, this mount namespace shows less
than there is."""

import os
import resource
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

# 4 MiB that copies cannot have in common, two threads, 8 descriptors.
PROGRAM = """
import mmap, os, threading, time
memory = mmap.mmap(-1, 4 << 20)
memory.write(os.urandom(4 << 20))
threading.Thread(target=time.sleep, args=(1000,)).start()
held = [os.eventfd(0) for _ in range(8)]
open("up", "w").close()
time.sleep(1000)
"""
COPIES = 50
NAME = f"fsnap-limits-{os.getpid()}"


def refused(t, what, hint, *words, n=COPIES, **how):
    before = set(children.tree(os.getpid()))
    result = t.fsnap.run("restore", "mine", "--clones", n, "--json", **how)
    t.expect_error(result, 1, "SYSTEM", f"{n} copies", "room for", *words)
    t.expect_true(f"{what}: the hint says {hint}: {result.hint}", hint in result.hint)
    t.expect(f"{what}: nothing was made", set(), set(children.tree(os.getpid())) - before)


class Shown:
    """A file shows something else in here."""

    def __init__(self, t, path, text):
        self.path, self.other = path, t.path("shown")
        with open(self.other, "w", encoding="ascii") as f:
            f.write(text)

    def __enter__(self):
        sandbox.mount(self.other, self.path, "none", sandbox.MS_BIND)

    def __exit__(self, *_):
        sandbox.check(sandbox.libc.umount(self.path.encode()), "umount")


def of_the_machine(t):
    for name, hint in (("threads-max", "sysctl"), ("pid_max", "sysctl")):
        with Shown(t, f"/proc/sys/kernel/{name}", "20\n"):
            refused(t, name, hint, f"kernel.{name}", "tasks")
    with Shown(t, "/proc/meminfo", "MemTotal: 900000 kB\nMemAvailable:     50000 kB\n"):
        refused(t, "memory", "fewer copies", "bytes of memory")


def group_of(kind, points=("/sys/fs/cgroup", "/sys/fs/cgroup/unified")):
    """Where a group with this controller can be made, and whether it is of version 1."""
    if os.path.exists(f"/sys/fs/cgroup/{kind}/cgroup.procs"):
        return f"/sys/fs/cgroup/{kind}/{NAME}", True
    for point in points:
        try:
            with open(f"{point}/cgroup.subtree_control", encoding="ascii") as f:
                if kind in f.read().split():
                    return f"{point}/{NAME}", False
        except OSError:
            pass
    return None, False


def of_the_group(t):
    for kind, old, new, value, words in (("pids", "pids.max", "pids.max", "40", ("tasks", "pids.max")),
                                         ("memory", "memory.limit_in_bytes", "memory.max", str(120 << 20),
                                          ("bytes of memory", "control group"))):
        path, first = group_of(kind)
        if not path:
            t.note(f"no control group for {kind} here")
            continue
        os.mkdir(path)
        try:
            with open(f"{path}/{old if first else new}", "w", encoding="ascii") as f:
                f.write(value)

            def enter(path=path):
                with open(f"{path}/cgroup.procs", "w", encoding="ascii") as f:
                    f.write("0")
            refused(t, f"{kind} of the group", "raise", *words, before=enter)
        finally:
            children.reap()
            os.rmdir(path)


def of_the_user(t):
    with Shown(t, "/proc/sys/fs/file-max", "100\n"):
        refused(t, "files", "sysctl", "fs.file-max", "open files", uid=1000)
    def few():
        resource.setrlimit(resource.RLIMIT_NPROC, (20, 20))
    refused(t, "processes of the user", "ulimit -u", "limit on processes", uid=1000, before=few)


def save(t, name, program, uid):
    """An image `mine` in a store of that user's own."""
    os.mkdir(t.path(name))
    os.chown(t.path(name), uid, uid)
    pid = children.spawn(["/usr/bin/python3", "-c", program], cwd=t.path(name), uid=uid, session=True,
                         env=trial.ENVIRONMENT, out="/dev/null")
    children.wait_file(t.path(f"{name}/up"), pid, 20)
    t.fsnap.store = t.path(f"{name}/store")
    result = t.fsnap.run("dump", "-t", pid, "--kill", "--json", "--name", "mine", uid=uid)
    if not t.expect("dump", 0, result.status):
        raise trial.Stop(str(result))


def body(t):
    if t.control:
        t.expect_true("control", True)
        return
    save(t, "root", PROGRAM, 0)
    of_the_machine(t)
    of_the_group(t)
    # Anonymous shared memory can be read by root alone.
    save(t, "user", PROGRAM.replace("mmap.mmap(-1, 4 << 20)", "bytearray(4 << 20)").replace("memory.write", "str"), 1000)
    of_the_user(t)
    result = t.fsnap.run("restore", "mine", "--clones", 3, "--json", uid=1000)
    t.expect("where there is room: status", 0, result.status)
    for copy in result.json["clones"]:
        os.kill(copy["pid"], signal.SIGKILL)


trial.main(body)
