#!/usr/bin/python3
"""Streamed restores: a program that changes, moves, throws away and forks its memory while it is still coming finds
every page as it must be; afterwards nothing is left of fsnap. If the pager dies or the image is damaged, the tree is
killed, with a message; a dump waits until all is there."""

import fcntl
import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import recorded_disk  # noqa: E402
import trial  # noqa: E402

MIB = 1 << 20


def named(comm):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if name == comm and state != "Z":
            found.append(int(pid))
    return found


def end(t, pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    children.wait_gone([pid], 5)
    children.statuses.pop(pid, None)
    t.until("pager and guardian are gone", lambda: not named("fsnap-pager") + named("fsnap-guardian"))


def touch(t, name):
    open(t.path(name), "w").close()


def clear(t):
    for name in ("go", "again", "ready", "done", "over"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    touch(t, "result")  # emptied: it is open in images


def start(t, mib):
    clear(t)
    pid = t.start([os.path.join(t.helpers, "streamed"), t.work, str(mib)], ready="ready")
    return pid, t.dump(pid, "--kill")["image"]


def judge(t, names):
    with open(t.path("result")) as file:
        lines = file.read().splitlines()
    t.expect_true(f"it has checked itself ({len(lines)})", len(lines) >= names)
    for line in lines:
        t.expect(f"the program: {line}", "ok", line.split()[0])


def changing(t):
    pid, image = start(t, 8)
    touch(t, "go")
    result = t.fsnap.run("restore", image, "-d", "--memory", "stream", "--wait-resident", "--json")
    t.expect("restore --memory stream: exit status", 0, result.status)
    report = result.json
    t.expect_true("most of it was streamed", report["stream_bytes"] > 70 * MIB)
    t.expect_true("some of it was waited for", report["stream_faults"] > 0)
    t.expect_true("what was thrown away did not come", report["streamed_bytes"] < report["stream_bytes"] + 40 * MIB)
    t.expect_true("residence comes later than the first instruction",
                  report["resident_us"] > report["first_instruction_us"])
    t.until("it is through", lambda: os.path.exists(t.path("done")), 30)
    touch(t, "again")
    t.until("it is over", lambda: os.path.exists(t.path("over")), 30)
    judge(t, 24)
    end(t, pid)


def recording(t):
    """What was touched while it was recorded comes first the next time."""
    pid, image = start(t, 8)
    record = os.path.join(t.fsnap.store, "images", image + ".record")
    touch(t, "go")
    result = t.fsnap.run("restore", image, "-d", "--record", str(children.PATIENCE), "--wait-resident", "--json")
    t.expect("restore --record: exit status", 0, result.status)
    t.expect_true("page after page was waited for", result.json["stream_faults"] > 2000)
    t.expect("there was no record yet", 0, result.json["record_bytes"])
    t.expect_true("there is one now", os.path.exists(record))
    faults = result.json["stream_faults"]
    t.until("it is through", lambda: os.path.exists(t.path("done")), 30)
    judge(t, 15)
    end(t, pid)
    clear(t)
    touch(t, "go")
    result = t.fsnap.run("restore", image, "-d", "--memory", "stream", "--wait-resident", "--json")
    t.expect("with a record: exit status", 0, result.status)
    t.expect_true("it is used", result.json["record_bytes"] > 8 * MIB)
    t.expect_true("less is waited for", result.json["stream_faults"] < faults)
    t.until("it is through again", lambda: os.path.exists(t.path("done")), 30)
    judge(t, 15)
    end(t, pid)
    t.expect("rm: exit status", 0, t.fsnap.run("rm", image).status)
    t.expect("the record goes with the image", False, os.path.exists(record))


def comes_whole(t, what):
    """All of its memory, and the program finds it as it was."""
    touch(t, "go")
    t.until(what, lambda: os.path.exists(t.path("done")), 40)
    t.until("all is there", lambda: not named("fsnap-pager"), 30)
    touch(t, "again")
    t.until("it is over", lambda: os.path.exists(t.path("over")), 30)
    judge(t, 24)


def runs_on(t, pid, image, disturb):
    """Whatever happened to helpers, its memory comes."""
    handle = t.fsnap.start("restore", image, "-d", "--memory", "stream", "--json")
    t.expect_true("something was disturbed in time", soon(disturb))
    t.expect("restore: exit status", 0, t.fsnap.finish(handle).status)
    comes_whole(t, "it is through")
    end(t, pid)


def kill_one(name):
    found = named(name)
    if found:
        os.kill(found[0], signal.SIGKILL)
    return bool(found)


def soon(disturb):
    """Does it as soon as it can be done: all this lasts for a moment only."""
    deadline = time.monotonic() + 20
    while not disturb() and time.monotonic() < deadline:
        pass
    return time.monotonic() < deadline


def dies(t, pid, image, disturb, what, *words):
    """In the foreground: the tree is killed, and it is said why."""
    clear(t)
    handle = t.fsnap.start("restore", image, "--memory", "stream")
    t.expect_true(f"{what}: in time", soon(disturb))
    result = t.fsnap.finish(handle, 30)
    # On a slow machine its plan has not come to the end then: that fails first, and says both.
    t.expect_true(f"{what}: exit status is a kill's ({result.status})",
                  result.status in (-9, 137) or result.status == 125 and "died in step" in result.err)
    for word in ("was killed", *words):
        t.expect_true(f"{what}: the message has {word!r}: {result.err}", word in result.err)
    t.expect_true(f"{what}: nobody is left", not os.path.exists(f"/proc/{pid}"))
    end(t, pid)


def flip(t, image):
    path = os.path.join(t.fsnap.store, "images", image + ".fsnap")
    with open(path, "r+b") as file:
        file.seek(60 * MIB)  # among its pages
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    return True


def block_of(file, block):
    """Where a block of a file lies on its disk: FIBMAP, which is 1."""
    return struct.unpack("i", fcntl.ioctl(file, 1, struct.pack("i", block)))[0]


def failing_disk(t):
    """Some pages in the midst of the image cannot be read from its disk."""
    why = recorded_disk.missing("ext4")
    if why:
        t.note(f"no disk that fails: {why}")
        return
    disk = recorded_disk.RecordedDisk(t, "ext4")
    disk.mount()
    kept, t.fsnap.store = t.fsnap.store, os.path.join(disk.directory, "store")
    pid, image = start(t, 8)
    with open(os.path.join(t.fsnap.store, "images", image + ".fsnap"), "rb") as file:
        os.fsync(file.fileno())
        size = os.fstatvfs(file.fileno()).f_frsize
        middle = os.fstat(file.fileno()).st_size // size // 2
        where = [block_of(file, block) * size for block in range(middle, middle + 1024)]
    disk.spoil(min(x for x in where if x), max(where))
    disk.again()
    dies(t, pid, image, lambda: True, "disk error", "Input/output error")
    disk.unmount()
    disk.remove()
    t.fsnap.store = kept


def body(t):
    if not t.control and not os.geteuid():
        failing_disk(t)
    changing(t)
    recording(t)

    pid, image = start(t, 16)
    runs_on(t, pid, image, lambda: kill_one("fsnap-guardian"))

    clear(t)
    handle = t.fsnap.start("restore", image, "--memory", "stream")
    t.until("it is under way", lambda: named("fsnap-guardian"), 20)
    t.until("it runs", lambda: os.path.exists(f"/proc/{pid}"))
    time.sleep(0.05)
    os.kill(handle[0], signal.SIGKILL)
    t.fsnap.finish(handle, 10)
    if os.path.exists(f"/proc/{pid}"):  # else it was killed in time for the tree to go with it
        comes_whole(t, "without its restorer it is through")
    end(t, pid)

    clear(t)
    result = t.fsnap.run("restore", image, "-d", "--memory", "stream", "--json")
    report = t.dump(pid, "-n", "again")
    t.expect("a dump waits for all of it", "again", report["image"])
    t.expect("... and has it", [], named("fsnap-pager"))
    end(t, pid)

    dies(t, pid, image, lambda: named("fsnap-guardian") and kill_one("fsnap-pager"), "pager killed", "has died", "fsnap verify")
    flip(t, image)
    dies(t, pid, image, lambda: True, "damaged", "checksum")


trial.main(body)
