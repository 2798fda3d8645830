#!/usr/bin/python3
"""Prefetching: the pages that were hot come back into the page cache, by fsnap prefetch before and by a
restore beside it, and only they; files that are not what they were are left out and named."""

import ctypes
import json
import mmap
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

MIB = 1 << 20
FILES = ("data", "grown", "shrunk", "gone", "fifo", "touched")
PROGRAM = f"""
import os, time
held = []
for name in {FILES!r}:
    file = os.open(name, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    for _ in range(4):
        for page in range(2560, 5120 if name == "data" else 2816):
            os.pread(file, 1, page * 4096)
    if name == "data":
        held.append(file)
    else:
        os.close(file)
open("ready", "w").close()
while True:
    for page in range(2560, 5120):
        os.pread(held[0], 1, page * 4096)
    time.sleep(0.05)
"""


def forget(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(path):
    """Bytes of a file in the page cache, by MiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        pages = (ctypes.c_ubyte * (len(view) // 4096))()
        libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(view)), pages)
        found = [4096 * sum(page & 1 for page in pages[i:i + 256]) for i in range(0, len(pages), 256)]
    return found


def start(t):
    for name in FILES:
        with open(t.path(name), "wb") as file:
            file.write(bytes(40 * MIB if name == "data" else 16 * MIB))
        forget(t.path(name))
    # Watched from its first read on: the files that it closes are known, too.
    gate = t.start(["/bin/sh", "-c", 'while [ ! -e go ]; do sleep 0.05; done; exec "$0" -c "$1"',
                    sys.executable, PROGRAM])
    result = t.fsnap.run("heat", "-t", gate, "--watch")
    if result.status == 4:
        t.note("skipped: " + result.message)
        sys.exit(77)
    t.expect("heat --watch: exit status", 0, result.status)
    open(t.path("go"), "w").close()
    t.until("it has read", lambda: os.path.exists(t.path("ready")), 30)
    return gate


def change_files(t):
    with open(t.path("grown"), "ab") as file:
        file.write(b"more")
    os.truncate(t.path("shrunk"), 4 * MIB)
    os.unlink(t.path("gone"))
    os.unlink(t.path("fifo"))
    os.mkfifo(t.path("fifo"))
    os.utime(t.path("touched"))


def expect_hot(t, what):
    found = cached(t.path("data"))
    t.expect_true(f"{what}: the hot part is there ({sum(found[10:20])})", sum(found[10:20]) > 9 * MIB)
    t.expect(f"{what}: nothing else is", 0, sum(found[:9]) + sum(found[21:]))


def body(t):
    pid = start(t)
    image = t.dump(pid, "--heat", "always", "--kill")["image"]
    change_files(t)
    forget(t.path("data"))
    t.expect("the page cache was emptied", 0, sum(cached(t.path("data"))))

    result = t.fsnap.run("prefetch", image, "--json")
    t.expect("prefetch: exit status", 0, result.status)
    expect_hot(t, "prefetch")
    t.expect_true("it says how much it read", result.json["read_bytes"] > 9 * MIB)
    notes = "\n".join(result.json["notes"])
    for name, why in (("grown", "grown"), ("shrunk", "shrunk"), ("gone", "gone"),
                      ("fifo", "no regular file"), ("touched", "changed")):
        t.expect_true(f"{name} is left out and named: {notes}", f"/{name}: left out: it " in notes)
        t.expect_true(f"{name}: the reason", why in notes)

    forget(t.path("data"))
    result = t.fsnap.run("restore", image, "-d", "--no-prefetch", "--json")
    t.expect("restore --no-prefetch: exit status", 0, result.status)
    t.expect("nothing is prefetched", 0, result.json["prefetch_files"])
    os.kill(pid, 9)
    children.wait_gone([pid], 5)

    forget(t.path("data"))
    result = t.fsnap.run("restore", image, "-d", "--stats", "0.5", "--json")
    t.expect("restore --stats: exit status", 0, result.status)
    stats = json.loads(result.out.splitlines()[-1])
    if stats["scarce"]:
        t.note("skipped: others have taken the memory that prefetching would need")
        sys.exit(77)
    t.expect_true(f"what was prefetched is told: {stats}", stats["read_bytes"] + stats["present_bytes"] > 9 * MIB)
    t.expect_true("it was all used: the tree reads it again", stats["used_bytes"] >= 9 * MIB)
    t.expect_true("... and hardly more", stats["touched_bytes"] < 1.2 * stats["used_bytes"])
    os.kill(pid, 9)
    children.wait_gone([pid], 5)
    forget(t.path("data"))

    report = t.restore(image)
    t.until("the restore brings the hot part back", lambda: sum(cached(t.path("data"))[10:20]) > 9 * MIB)
    t.expect_true("the report says how much it will be", report["prefetch_bytes"] > 9 * MIB)
    t.expect_true("... and what is left out", any("/grown" in note for note in report["notes"]))
    os.kill(pid, 9)
    children.wait_gone([pid], 5)


trial.main(body)
