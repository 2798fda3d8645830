#!/usr/bin/python3
"""A restore that needs more huge pages (hugetlb) than the system has to give is refused before anything
is made: how many, and where to raise it. With them it succeeds."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import hugepages  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PRIVATE, SHARED, MEMFD = 3, 2, 4

PROGRAM = f"""
import ctypes, mmap, os, time
size = 2 << 20
HUGE = 0x40000
private = mmap.mmap(-1, {PRIVATE} * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | HUGE)
shared = mmap.mmap(-1, {SHARED} * size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | HUGE)
fd = os.memfd_create("huge", 4)  # MFD_HUGETLB
os.ftruncate(fd, {MEMFD} * size)
one = mmap.mmap(fd, size, flags=mmap.MAP_SHARED)  # of its pages one is mapped, and the others are holes
private[0] = shared[0] = one[0] = 7
open('ready', 'w').close(); time.sleep(1000)
"""
NEEDED = PRIVATE + SHARED + 1


def free():
    base = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
    with open(base + "free_hugepages") as f, open(base + "resv_hugepages") as r:
        return int(f.read()) - int(r.read())


def body(t):
    with hugepages.pool(NEEDED) as enough:
        if not enough:
            sandbox.skip("the system gives no huge pages (/proc/sys/vm/nr_hugepages)")
        pid = t.start(["/usr/bin/python3", "-c", PROGRAM], ready="ready")
        image = t.dump(pid, "--kill")["image"]
        t.restore(image)
        again = t.dump(pid, "--kill")["image"]
    if free() > 0:
        sandbox.skip("somebody else has left huge pages")
    result = t.fsnap.run("restore", again, "-d", "--json")
    t.expect_error(result, 1, "KERNEL_LACKS", f"{NEEDED} huge pages", "2048 kB")
    t.expect_true("the hint says where, and by how many",
                  re.search(rf"nr_hugepages by {NEEDED}\b", result.hint or ""))
    t.expect("processes left", False, os.path.exists(f"/proc/{pid}"))


trial.main(body)
