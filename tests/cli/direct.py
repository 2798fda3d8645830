#!/usr/bin/python3
"""Eager restores from a disk: the image is read past the page cache, many pieces at a time, while tasks copy what has
come; damage is found before anything of the tree runs. What is in the page cache is read from there."""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "lib"))
import children  # noqa: E402
import slow  # noqa: E402
import trial  # noqa: E402

SIZE = 48  # MiB
MIB = 1 << 20


class Disk:
    """An ext4 on a loop device; both end with our mount namespace."""

    def __init__(self, work):
        self.directory = os.path.join(work, "disk")
        self.image = tempfile.mktemp(prefix="fsnap-direct.", dir="/dev/shm")
        os.mkdir(self.directory)
        with open(self.image, "wb") as f:
            f.truncate(256 * MIB)

    def mount(self):
        for argv in (["mkfs.ext4", "-q", self.image], ["mount", "-o", "loop,noatime", self.image, self.directory]):
            if subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
                return False
        return True

    def close(self):
        subprocess.run(["umount", self.directory], capture_output=True, check=False)
        os.unlink(self.image)


def ask(t, what):
    if os.path.exists(t.path("answer")):
        os.unlink(t.path("answer"))
    with open(t.path("ask"), "w", encoding="utf-8"):
        pass
    t.until(f"{what}: it answers", lambda: os.path.exists(t.path("answer")), 20)
    with open(t.path("answer"), encoding="utf-8") as f:
        t.expect(what, "ok", f.read())


def end(pid):
    os.kill(pid, 9)
    children.wait_gone([pid], 5)
    children.statuses.pop(pid, None)


def restored(t, what, pid, direct):
    result = t.fsnap.run("restore", "image", "-d", "--memory", "eager", "--json", timeout=60)
    if not t.expect(f"{what}: exit status", 0, result.status):
        print(result, end="")
        return
    read = result.json["direct_bytes"]
    t.expect(f"{what}: read directly ({read >> 20} MiB)", direct, read >= SIZE * MIB)
    t.expect(f"{what}: or not at all", True, direct or read == 0)
    ask(t, what)
    end(pid)


def rounds(t, disk):
    t.fsnap.store = os.path.join(disk.directory, "store")
    pid = t.start([os.path.join(t.helpers, "working"), t.work, str(SIZE)], ready="ready", name="working")
    image = os.path.join(t.fsnap.store, "images", t.dump(pid, "--no-live", "--kill", "--name", "image")["image"] + ".fsnap")
    slow.forget(image)
    restored(t, "small, from a disk", pid, False)
    os.environ["FSNAP_DIRECT"] = "1"  # whatever its size
    slow.forget(image)
    restored(t, "from a disk", pid, True)
    with open(image, "rb") as f:
        while f.read(MIB):
            pass
    restored(t, "from the page cache", pid, False)
    slow.forget(image)
    os.environ["FSNAP_NO_DIRECT"] = "1"
    restored(t, "as any file", pid, False)
    del os.environ["FSNAP_NO_DIRECT"]
    damage(image)
    slow.forget(image)
    result = t.fsnap.run("restore", "image", "-d", "--memory", "eager", "--json")
    t.expect("damaged: exit status", 6, result.status)
    t.expect("damaged: nothing is left", [], children.tree(pid) if os.path.exists(f"/proc/{pid}") else [])


def damage(image):
    """One byte in the middle of its pages."""
    with open(image, "r+b") as f:
        f.seek(SIZE // 2 * MIB)
        byte = f.read(1)
        f.seek(SIZE // 2 * MIB)
        f.write(bytes([byte[0] ^ 1]))
        f.flush()
        os.fsync(f.fileno())


def body(t):
    disk = Disk(t.work)
    try:
        if disk.mount():
            rounds(t, disk)
        else:
            t.note("no loop device to be had: nothing was tried")
    finally:
        disk.close()


trial.main(body)
