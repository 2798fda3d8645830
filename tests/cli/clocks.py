#!/usr/bin/python3
"""CLOCK_MONOTONIC and CLOCK_BOOTTIME: in the same boot time has passed, after another boot or elsewhere they go on
where they stood, in a time namespace that the next dump saves as well; --clocks says otherwise. Who may not make a
time namespace is told so. What would give children another one is refused."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import sandbox  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_REFUSED, EXIT_TARGET, EXIT_USAGE  # noqa: E402

CLONE_NEWTIME, PR_CAPBSET_DROP, CAP_SYS_TIME = 0x80, 24, 25
PAUSE, AWAY = 1.5, 1000000
BOOT_ID = "/proc/sys/kernel/random/boot_id"

# Reads its clocks through the vDSO and by system call, in the process and in a child born before the dump.
PROGRAM = """
import ctypes, os, time
libc = ctypes.CDLL(None)
class Time(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
def called(clock):
    t = Time()
    libc.syscall(228, clock, ctypes.byref(t))
    return t.s + t.ns / 1e9
name = "child" if os.fork() == 0 else "parent"
while True:
    line = "%f %f %f %f %f" % (time.time(), time.clock_gettime(1), called(1), time.clock_gettime(7), called(7))
    with open(name + ".new", "w") as f:
        f.write(line)
    os.rename(name + ".new", name)
    time.sleep(0.01)
"""


def into_time_namespace(seconds):
    def before():
        sandbox.check(sandbox.libc.unshare(CLONE_NEWTIME), "unshare")
        with open("/proc/self/timens_offsets", "w") as f:
            f.write(f"monotonic {seconds} 0\nboottime {seconds} 0\n")
    return before


def without_time(seconds):
    def before():
        into_time_namespace(seconds)()
        sandbox.check(sandbox.libc.prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0), "prctl")
    return before


def another_boot(t, number):
    with open(t.path("boot_id"), "w") as f:
        f.write(f"00000000-1111-2222-3333-{number:012}\n")
    if number == 1:
        sandbox.mount(t.path("boot_id"), BOOT_ID, "none", sandbox.MS_BIND)


def read(t, name):
    """What `name` says now of its clocks."""
    os.unlink(t.path(name))
    t.until(f"{name} says something", lambda: os.path.exists(t.path(name)))
    with open(t.path(name)) as f:
        return [float(x) for x in f.read().split()]


def passed(t, what, before, jump, slack=0.7):
    """Since `before` clocks have moved by what the wall clock has, and by `jump`."""
    for name in ("parent", "child"):
        then, now = before[name], read(t, name)
        for index, clock in ((1, "CLOCK_MONOTONIC"), (2, "the same by system call"), (3, "CLOCK_BOOTTIME"),
                             (4, "the same by system call")):
            seen = (now[index] - then[index]) - (now[0] - then[0])
            t.expect_true(f"{what}: {name}: {clock} jumped by {jump} s (seen: {seen:.3f} s)",
                          abs(seen - jump) < slack)


def clocks(t):
    return {name: read(t, name) for name in ("parent", "child")}


def again(t, pid, *options, before=None, words=(), boot=0):
    """Dumps and kills, waits, restores; what the clocks showed before."""
    shown = clocks(t)
    image = t.dump(pid, "--kill")["image"]
    time.sleep(PAUSE)
    if boot:
        another_boot(t, boot)
    handle = t.fsnap.start("restore", image, "-d", "--json", *options, before=before)
    result = t.fsnap.finish(handle)
    if result.status != 0:
        raise trial.Stop(f"restore failed\n{result}")
    notes = str(result.json["notes"])
    for word in words:
        t.expect_true(f"{options}: a note says {word!r}", word in notes)
    if not words:
        t.expect_true(f"{options}: no note about clocks: {notes}", "clock" not in notes.lower())
    return shown, image


def body(t):
    try:
        os.stat("/proc/self/timens_offsets")
    except OSError:
        sandbox.skip("this kernel has no time namespaces")
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM])
    t.until("it runs", lambda: os.path.exists(t.path("parent")) and os.path.exists(t.path("child")))
    if t.control:
        passed(t, "nothing done", clocks(t), 0)
        return
    own = os.readlink("/proc/self/ns/time")

    shown, _ = again(t, pid)
    passed(t, "the same boot", shown, 0)
    t.expect("the same boot: time namespace", own, os.readlink(f"/proc/{pid}/ns/time"))
    shown, _ = again(t, pid, "--clocks", "go-on")
    passed(t, "--clocks go-on", shown, -PAUSE)
    t.expect_true("--clocks go-on: a time namespace of its own", own != os.readlink(f"/proc/{pid}/ns/time"))
    shown, _ = again(t, pid)
    passed(t, "dumped in its own time namespace, the same boot", shown, 0)
    shown, _ = again(t, pid, "--clocks", "go-on")
    passed(t, "and --clocks go-on again", shown, -PAUSE)

    # Elsewhere: the clocks there show something else, and the boot is another one.
    shown, image = again(t, pid, "--clocks", "machine", before=into_time_namespace(AWAY))
    drift = read(t, "parent")[1] - shown["parent"][1]
    t.expect_true(f"--clocks machine: those of the restoring process (moved by {drift:.0f} s)",
                  abs(drift - AWAY) < 60)
    for boot, away in ((1, 2 * AWAY), (2, 10)):
        shown, image = again(t, pid, before=into_time_namespace(away), boot=boot)
        passed(t, f"after another boot, {away} s away", shown, -PAUSE)

    os.killpg(pid, 9)
    os.chmod(t.work, 0o777)
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM], uid=1000)
    again(t, pid, before=without_time(AWAY), boot=3, words=("CLOCK_MONOTONIC", "seconds ahead"))
    t.dump(pid, "--kill", "--name", "last")
    handle = t.fsnap.start("restore", "last", "-d", "--json", "--clocks", "go-on", before=without_time(AWAY))
    t.expect_error(t.fsnap.finish(handle), EXIT_TARGET, "PERMISSION", "time namespace")
    t.expect_error(t.fsnap.run("restore", "last", "-d", "--clocks", "back", "--json"), EXIT_USAGE, "USAGE", "--clocks back")
    t.restore("last")

    unshared = t.start(["/usr/bin/python3", "-c", "import ctypes, time\n"
                        "ctypes.CDLL(None).unshare(0x80)\nopen('unshared', 'w')\ntime.sleep(100)"],
                       ready="unshared", name="unsharer")
    t.expect_error(t.fsnap.run("dump", "-t", unshared, "--json"), EXIT_REFUSED, "UNSUPPORTED", "time namespace",
                   str(unshared))


trial.main(body)
