#!/usr/bin/python3
"""Page-cache heat: what a program reads again and again shows as hot, what it never read as absent, of a
running tree and in its image; a watched tree also tells of files it has closed. Damage to the hints costs
only the hints."""

import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

MIB = 1 << 20
WARM = 2
PROGRAM = """
import mmap, os, signal, sys
def again(*_):
    with open("closed", "rb") as closed:
        closed.seek(3 << 20)
        closed.read(1 << 20)
    os.pread(data, 1, 12 << 20)
    open("again", "w").close()
signal.signal(signal.SIGUSR1, again)
data = os.open("data", os.O_RDONLY)
mapped = mmap.mmap(os.open("mapped", os.O_RDONLY), 0, prot=mmap.PROT_READ)
for page in range(512, 768):
    mapped[page * 4096]
os.pread(os.open("mapped", os.O_RDONLY), 1, 3 << 20)
in_memory = open("/dev/shm/" + sys.argv[1], "rb")
in_memory.read(1)
os.posix_fadvise(data, 0, 0, os.POSIX_FADV_RANDOM)
for _ in range(4):
    for page in range(2560, 5120):
        os.pread(data, 1, page * 4096)
open("ready", "w").close()
while True:
    signal.pause()
"""
# Where a slot of store/layout.h names the hints, and which of the two slots is in use.
SLOTS, SLOT_HINTS = (4096, 8192), 136


def make_file(t, name, size):
    with open(t.path(name), "wb") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def heat_of(t, name, *words):
    """{"hot_bytes": ..., "runs": ...} of the file that ends in /name, and what the source is."""
    result = t.fsnap.run("heat", *words, "--json")
    if not t.expect(f"heat {words}: exit status", 0, result.status):
        raise trial.Stop(str(result))
    found = [file for file in result.json["files"] if file["path"].endswith("/" + name)]
    return (found[0] if found else None), result.json["source"]


def covered(file, offset, size):
    """Bytes of [offset, offset + size) that are in the page cache."""
    return sum(max(0, min(run["offset"] + run["bytes"], offset + size) - max(run["offset"], offset))
               for run in file["runs"])


def expect_data(t, where, file):
    if not t.expect_true(f"{where}: the file is there", file):
        return
    # The kernel may take pages away at any time.
    cached = covered(file, 10 * MIB, 10 * MIB)
    t.expect_true(f"{where}: what was read is cached ({cached})", cached > 9 * MIB)
    t.expect_true(f"{where}: what was not read is not", covered(file, 30 * MIB, 10 * MIB) == 0)
    t.expect_true(f"{where}: most of it is hot ({file['hot_bytes']})", file["hot_bytes"] > 8 * MIB)
    t.expect_true(f"{where}: it is open", file["open"])


def watched(t, pid):
    result = t.fsnap.run("heat", "-t", pid, "--watch")
    if not t.expect("heat --watch: exit status", 0, result.status):
        return
    os.kill(pid, 10)
    t.until("it reads", lambda: os.path.exists(t.path("again")))
    file, source = heat_of(t, "closed", "-t", pid)
    t.expect_true(f"the watch is a source ({source})", "watch" in source)
    if t.expect_true("a file that was closed is told of", file):
        t.expect("... what was read of it", MIB, covered(file, 3 * MIB, MIB))
        t.expect("... not open any more", False, file["open"])


def without_bpf(t, pid):
    """Where BPF may not be, page tables tell what of the cache is warm."""
    os.environ["FSNAP_NO_BPF"] = "1"
    file, source = heat_of(t, "mapped", "-t", pid)
    del os.environ["FSNAP_NO_BPF"]
    t.expect_true(f"page tables are a source ({source})", source.startswith("mincore") and "page tables" in source)
    if t.expect_true("a mapped file is told of", file):
        warm = [run for run in file["runs"] if run["heat"] == WARM]
        t.expect_true("what is mapped is warm", covered({"runs": warm}, 2 * MIB, MIB) == MIB)
        t.expect("... what was only read is not", 0, covered({"runs": warm}, 3 * MIB + (1 << 17), MIB // 2))
        t.expect_true("... but cached", covered(file, 3 * MIB, MIB) > 0)


def well_watched(t, pid):
    """A watch that has gone on for long knows better than folios which MiB is hot."""
    place = [x for x in os.listdir("/sys/fs/bpf/fsnap") if x.startswith(f"{pid}-")][0]
    before, _ = heat_of(t, "data", "-t", pid)
    os.utime("/sys/fs/bpf/fsnap/" + place, (0, 0))
    file, _ = heat_of(t, "data", "-t", pid)
    t.expect_true(f"what it has not seen is not hot any more ({before['hot_bytes']}, {file['hot_bytes']})",
                  0 < file["hot_bytes"] <= MIB < before["hot_bytes"])
    # The kernel may take pages away at any time.
    t.expect_true("... but still cached", file["cached_bytes"] > 9 * MIB)
    os.utime("/sys/fs/bpf/fsnap/" + place)


def damaged(t, image):
    """The image restores as if nothing were wrong; only heat says so."""
    path = os.path.join(t.fsnap.store, "images", image + ".fsnap")
    with open(path, "r+b") as file:
        file.seek(SLOTS[0] + SLOT_HINTS)
        offset, length = struct.unpack("<QQ", file.read(16))
        t.expect_true("the image has hints", length > 0)
        file.seek(offset + length // 2)
        byte = file.read(1)
        file.seek(offset + length // 2)
        file.write(bytes([byte[0] ^ 0x40]))
    t.expect_error(t.fsnap.run("heat", image, "--json"), 6, "IMAGE_CORRUPT", "hints")
    t.expect_error(t.fsnap.run("verify", image, "--json"), 6, "IMAGE_CORRUPT", "hints")
    return t.restore(image)["pid"]


def body(t):
    make_file(t, "data", 40 * MIB)
    make_file(t, "closed", 8 * MIB)
    make_file(t, "mapped", 8 * MIB)
    in_memory = os.path.basename(t.work)
    with open("/dev/shm/" + in_memory, "wb") as file:
        file.write(bytes(MIB))
    pid = t.start([sys.executable, "-c", PROGRAM, in_memory], ready="ready")
    file, source = heat_of(t, "data", "-t", pid)
    if "eBPF" not in source:
        t.note(f"skipped: heat comes from {source}")
        sys.exit(77)
    expect_data(t, "running", file)
    without_bpf(t, pid)
    t.expect("what lies in memory has no heat", None, heat_of(t, in_memory, "-t", pid)[0])
    watched(t, pid)
    well_watched(t, pid)
    report = t.dump(pid, "--heat", "always", "--kill")
    t.expect_true("the report counts hot bytes", report["hot_bytes"] > 8 * MIB)
    t.expect("the report names its sources", 4 | 2, report["heat_sources"] & 6)
    expect_data(t, "image", heat_of(t, "data", report["image"])[0])
    t.expect_true("the closed file is in the image", heat_of(t, "closed", report["image"])[0])
    t.expect("the same PID", pid, damaged(t, report["image"]))
    report = t.dump(pid, "--heat", "never", "--kill")
    t.expect("none was asked for", 0, report["heat_files"])
    t.expect("... and none is there", None, heat_of(t, "data", report["image"])[0])
    children.wait_gone([pid], 5)
    os.unlink("/dev/shm/" + in_memory)


trial.main(body)
