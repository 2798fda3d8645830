#!/usr/bin/python3
"""Reports of dumps and restores say of what sort the pages are: as many of each as the program has made."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import trial  # noqa: E402

# 1000 pages of its own, 300 it shares with nobody but might, 200 of a file that it has changed for itself, in
# memory that has huge pages where the system gives some: 4 MiB.
PROGRAM = """
import mmap, time
def fill(memory, pages):
    for page in range(pages):
        memory[page * 4096] = 1 + page % 255
plain = mmap.mmap(-1, 1000 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
plain.madvise(15)  # MADV_NOHUGEPAGE
fill(plain, 1000)
shared = mmap.mmap(-1, 300 * 4096)
fill(shared, 300)
with open("data", "wb") as f:
    f.truncate(500 * 4096)
f = open("data", "rb")
copied = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
fill(copied, 200)
huge = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
huge.madvise(14)  # MADV_HUGEPAGE
fill(huge, 2048)
print(sum(int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("AnonHugePages")), flush=True)
open("ready", "w").close()
while True:
    time.sleep(1)
"""


def look(t, what, report, huge):
    pages, count = report["pages_by_kind"], report["bytes_by_kind"]
    t.expect(f"{what}: bytes", {kind: n * 4096 for kind, n in pages.items()}, count)
    t.expect_true(f"{what}: its own pages", 3048 <= pages["anonymous"] < 3048 + 4000)
    t.expect_true(f"{what}: pages of files", 200 <= pages["private_file"] < 200 + 1000)
    t.expect(f"{what}: shared memory", 300, pages["shared_memory"])
    t.expect(f"{what}: the system's huge pages, swap", (0, 0), (pages["hugetlb"], pages["swapped"]))
    t.expect(f"{what}: huge pages", huge // 4, pages["huge"])
    t.expect(f"{what}: in all", report["bytes"],
             sum(count[kind] for kind in ("anonymous", "private_file", "shared_memory", "hugetlb")))


def body(t):
    pid = t.start([sys.executable, "-c", PROGRAM], ready="ready")
    if t.control:
        return
    huge = int(open(t.path("target.out")).read())
    report = t.dump(pid, "--kill")
    look(t, "dump", report, huge)
    look(t, "restore", t.restore(report["image"]), huge)


trial.main(body)
