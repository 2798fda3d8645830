#!/usr/bin/python3
"""What goes wrong in the middle of a live dump, of a chain of images or of a watch: the store is full, the target ends or
executes another program, the parent image is gone or altered, who keeps track is stopped. Each ends in a clear error, or
in an image that is whole; the target is unharmed, and earlier images are what they were."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_IMAGE, EXIT_REFUSED, EXIT_STORE, EXIT_TARGET  # noqa: E402

MIB = 1 << 20
PROGRAM = """
import mmap, os, signal, sys, time
held = [mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)]
for page in range(0, len(held[0]), 4096):
    held[0][page:page + 8] = page.to_bytes(8, "little")
def more(*_):
    while not os.path.exists("enough"):
        held.append(bytearray(b"x" * (2 << 20)))
        time.sleep(0.001)
    del held[1:]
    open("less", "w").close()
def other(*_):
    os.execv(sys.executable, [sys.executable, "-c", OTHER])
def answer(*_):
    good = all(int.from_bytes(held[0][page:page + 8], "little") == page for page in range(0, len(held[0]), 4096))
    with open("answer", "w") as out:
        out.write("good" if good else "bad")
signal.signal(signal.SIGUSR1, more)
signal.signal(signal.SIGUSR2, answer)
signal.signal(signal.SIGHUP, other)
OTHER = "import signal, time; signal.signal(signal.SIGUSR2, lambda *_: open('answer', 'w').write('other')); " \\
        "open('executed', 'w').close(); [time.sleep(0.01) for _ in iter(int, 1)]"
open("ready", "w").close()
while True:
    time.sleep(0.01)
"""


def start(t, mib):
    forget(t, "ready", "enough", "less", "executed", "answer")
    return t.start([sys.executable, "-c", PROGRAM, str(mib)], ready="ready")


def forget(t, *names):
    for name in names:
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))


def catches(pid, number):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        caught = next(x for x in file if x.startswith("SigCgt:")).split()[1]
    return int(caught, 16) >> number - 1 & 1


def expect_well(t, pid, what, *answers):
    forget(t, "answer")
    t.until(f"{what}: it can be asked", lambda: catches(pid, signal.SIGUSR2))
    os.kill(pid, signal.SIGUSR2)
    t.until(f"{what}: it answers", lambda: os.path.exists(t.path("answer")) and open(t.path("answer")).read())
    t.expect_true(f"{what}: it answers well", open(t.path("answer")).read() in (answers or ("good",)))
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        t.expect_true(f"{what}: nothing watches its memory", " uw" not in file.read())


def end(pid):
    if os.path.exists(f"/proc/{pid}"):
        os.kill(pid, signal.SIGKILL)
    children.wait(pid, 10)


def expect_whole(t, *images):
    listed = t.fsnap.run("list", "--json").json["images"]
    t.expect("images that are listed", sorted(images), sorted(x["name"] for x in listed))
    t.expect("all are whole", 0, t.fsnap.run("verify", "--all").status if images else 0)
    t.expect("nothing is left half written", [], os.listdir(os.path.join(t.fsnap.store, "tmp")))


def store_full(t):
    """It takes space for what there is at first, and for more when it has copied that."""
    t.fsnap.store = t.path("small")
    os.mkdir(t.fsnap.store)
    sandbox.mount("tmpfs", t.fsnap.store, "tmpfs", 0, "size=100m")
    pid = start(t, 24)
    t.dump(pid, "--name", "kept")
    os.kill(pid, signal.SIGUSR1)
    refused = t.fsnap.run("dump", "-t", pid, "--live", "--json")
    t.expect_error(refused, EXIT_STORE, "STORE_FULL")
    open(t.path("enough"), "w").close()
    t.until("it goes on", lambda: os.path.exists(t.path("less")), 30)
    expect_well(t, pid, "store full in a live dump")
    expect_whole(t, "kept")

    handle = t.fsnap.start("watch", "-t", pid, "--every", "20ms", "--keep", "4", "--name", "w", "--json")
    t.until("the watch makes images", lambda: "w-000005" in open(handle[1] + ".out").read(), 30)
    forget(t, "enough", "less")
    os.kill(pid, signal.SIGUSR1)
    t.expect_error(t.fsnap.finish(handle), EXIT_STORE, None, hint=False)
    open(t.path("enough"), "w").close()
    t.until("it goes on", lambda: os.path.exists(t.path("less")), 30)
    expect_well(t, pid, "store full in a watch")
    expect_whole(t, *[x["name"] for x in t.fsnap.run("list", "--json").json["images"]])
    last = [x["name"] for x in t.fsnap.run("list", "--json").json["images"]][0]
    end(pid)
    t.restore(last)
    open(t.path("enough"), "w").close()
    expect_well(t, pid, "restored from the last image of the watch")
    end(pid)


def target_gone(t):
    """However far it has come; and another program is in the image, or this one."""
    chance, statuses = random.Random(4), {}
    for i in range(4):
        pid = start(t, 96)
        handle = t.fsnap.start("dump", "-t", pid, "--live", "--name", f"gone{i}", "--json")
        time.sleep(chance.uniform(0.005, 0.09))
        os.kill(pid, signal.SIGHUP if i % 2 else signal.SIGKILL)
        result = t.fsnap.finish(handle)
        statuses.setdefault((i % 2, result.status, result.code), []).append(i)
        if result.status != 0:
            t.expect_error(result, EXIT_TARGET, ("TARGET_DIED", "NO_PROCESS"), hint=False)
        if i % 2:
            t.until("it executes", lambda: os.path.exists(t.path("executed")))
            expect_well(t, pid, "it executed another program", "other")
        end(pid)
        if result.status == 0:
            t.restore(f"gone{i}")
            expect_well(t, pid, "as it was in the midst of that", "good", "other")
            end(pid)
    t.note(f"(executed, exit status, code): {statuses}")
    t.fsnap.run("rm", "--all")
    expect_whole(t)


def spoil(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def parent_altered(t):
    """What is written in the parent's pages is found when they are read; what is written in its head at once."""
    pid = start(t, 24)
    t.expect("track", 0, t.fsnap.run("track", "-t", pid, "--heat", "never").status)
    t.dump(pid, "--name", "p0")
    t.expect("it has a parent", "p0", t.dump(pid, "--name", "p1")["parent"])
    parent = os.path.join(t.fsnap.store, "images", "p0.fsnap")
    spoil(parent, 10 * MIB)
    t.expect_error(t.fsnap.run("verify", "p1", "--json"), EXIT_IMAGE, "IMAGE_CORRUPT", "p0", hint=False)
    t.expect_error(t.fsnap.run("compact", "p1", "--json"), EXIT_IMAGE, "IMAGE_CORRUPT", "p0", hint=False)
    spoil(parent, 10 * MIB)
    spoil(os.path.join(t.fsnap.store, "images", "p1.fsnap"), 4200)  # in its commit slot
    report = t.dump(pid, "--name", "p2")
    t.expect("one that is damaged is not built on", "", report["parent"])
    t.expect_true("a note says so", "p1" in str(report["notes"]) or "built on" in str(report["notes"]))
    t.expect("it is whole", 0, t.fsnap.run("verify", "p2").status)
    tracker_stopped(t, pid)
    t.fsnap.run("track", "-t", pid, "--stop")
    expect_well(t, pid, "its chain was broken")
    end(pid)
    t.restore("p2")
    expect_well(t, pid, "restored from the image behind")
    end(pid)
    t.fsnap.run("rm", "--all")


EXECUTED = 40


def executes(t):
    """Whoever executes another program has no text for a moment: that is waited for."""
    pid = t.start([os.path.join(t.helpers, "restless")])
    said = [t.fsnap.run("dump", "-t", pid, "--name", "restless", "--json").message for _ in range(EXECUTED)
            if t.fsnap.run("rm", "restless")]
    t.expect(f"a target that executes all the time: nobody misses its text: {set(said)}", [],
             [x for x in said if "no system call instruction" in x])
    t.expect_true(f"most are dumped: {said}", sum(1 for x in said if x) < EXECUTED / 2)
    end(pid)


OWN_USERFAULTFD = """
import ctypes, time
libc = ctypes.CDLL(None)
fd = libc.syscall(323, 1)  # UFFD_USER_MODE_ONLY
libc.ioctl(fd, 0xc018aa3f, (ctypes.c_uint64 * 3)(0xaa, 0, 0))  # UFFDIO_API
open("ready", "w").close()
time.sleep(1000)
"""


def watches_itself(t):
    """The kernel lets one userfaultfd alone have a mapping: told so, and of whom."""
    forget(t, "ready")
    pid = t.start([sys.executable, "-c", OWN_USERFAULTFD], ready="ready")
    t.expect_error(t.fsnap.run("track", "-t", pid, "--json"), EXIT_REFUSED, "UNSUPPORTED", pid, "has a userfaultfd of its own")
    end(pid)


def named(comm):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                found += [int(pid)] if file.read() == comm + "\n" else []
        except OSError:
            pass
    return found


def tracker_stopped(t, pid):
    """A dump waits for its word for some seconds, and says whom it waited for."""
    tracker = named("fsnap-track")[0]
    os.kill(tracker, signal.SIGSTOP)
    try:
        t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), EXIT_TARGET, "TARGET_BUSY", tracker, "fsnap-track")
    finally:
        os.kill(tracker, signal.SIGCONT)
    t.expect("the chain goes on", "p2", t.dump(pid, "--name", "p3")["parent"])


def pager_stopped(t):
    pid = start(t, 96)
    t.dump(pid, "--name", "streamed", "--kill")
    children.statuses.pop(pid, None)
    t.expect("restore", 0, t.fsnap.run("restore", "streamed", "-d", "--memory", "stream", "--record", "30").status)
    if t.until("its memory is still coming", lambda: len(named("fsnap-pager")) == 1):
        pager = named("fsnap-pager")
        os.kill(pager[0], signal.SIGSTOP)
        t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), EXIT_TARGET, "TARGET_BUSY", pager[0], "fsnap-pager")
        os.kill(pager[0], signal.SIGCONT)
    end(pid)


def body(t):
    if t.control:
        pid = start(t, 24)
        expect_well(t, pid, "control")
        end(pid)
        return
    t.fsnap.name_store = False
    kept = t.fsnap.store
    if not os.geteuid():
        store_full(t)
        t.fsnap.store = kept
    target_gone(t)
    executes(t)
    pid = start(t, 24)
    probe = t.fsnap.run("track", "-t", pid, "--json")
    end(pid)
    if probe.status:
        t.note(f"chains are left out: {probe.message}")
        return
    parent_altered(t)
    watches_itself(t)
    pager_stopped(t)


trial.main(body)
