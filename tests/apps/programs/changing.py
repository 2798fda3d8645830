"""Appends to a file that it has mapped, and maps files that are written, renamed and removed at once."""

import mmap
import os
import sys

top = sys.argv[1]


def mapped(name, n):
    if os.path.exists(os.path.join(top, name)):
        os.unlink(os.path.join(top, name))
    with open(os.path.join(top, name), "w+b") as f:
        f.write(b"%08d" % n * 1024)
        f.flush()
        return mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)


log = os.open(os.path.join(top, "log"), os.O_RDWR | os.O_CREAT, 0o600)
os.write(log, b"x" * 4096)
kept = mmap.mmap(log, 4096, prot=mmap.PROT_READ)
n, maps = 0, {}
while True:
    n += 1
    os.pwrite(log, b"y", 4096 + n)
    maps[n] = mapped(f"file{n % 4}", n)
    old = maps.pop(n - 8, None)
    if old:
        old.close()
    if n % 3 == 0:
        os.unlink(os.path.join(top, f"file{n % 4}"))
    elif n % 3 == 1:
        os.rename(os.path.join(top, f"file{n % 4}"), os.path.join(top, f"renamed{n % 4}"))
    for i, m in maps.items():
        if m[:] != b"%08d" % i * 1024:
            print("wrong:", i, m[:8], flush=True)
    if kept[:] != b"x" * 4096:
        print("wrong: what is mapped of the log", flush=True)
    if n % 50 == 0:
        with open(os.path.join(top, "count"), "w", encoding="ascii") as f:
            f.write(str(n))
