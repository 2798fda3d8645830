"""A disk that remembers every write and every flush, so that the power can be cut afterwards, at any of them.

The disk is a loop device on a file; the file is on a file system of ours (FUSE), whose server is here. So all that
the kernel sends to the disk comes by, in order: writes, and flushes (REQ_PREFLUSH and FUA become fsync(2) in
drivers/block/loop.c). A cut at some point keeps all that was written before the last flush; of what came after it
each write is there or not.

    disk = RecordedDisk(t, "ext4"); disk.mount(); ...; at = disk.position(); ...; disk.unmount()
    for cut in disk.cuts([at, ...]):
        with cut as directory: ...          # what is found there after the file system's own recovery

And a disk of which a part cannot be read any more: disk.spoil(start, end), then disk.again(), so that nothing is cached.
"""

import contextlib
import errno
import mmap
import os
import random
import shutil
import struct
import subprocess
import time

import sandbox

SIZE = 400 << 20
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
        "xfs": ["mkfs.xfs", "-q", "-f"],
        "btrfs": ["mkfs.btrfs", "-q", "-f"]}
WRITE, ZERO, FLUSH = range(3)
RECORD = struct.Struct("=IIQ")  # what, bytes, where; for WRITE the bytes follow

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE_IN, STATFS, RELEASE, FSYNC, FLUSH_IN, INIT = \
    1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26
INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE = 36, 38, 42, 43
ROOT, FILE, LONG = 1, 2, 1 << 30
FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_MAX_PAGES = 1, 1 << 5, 1 << 22
PUNCH_OR_ZERO = 0x2 | 0x10


class Server:
    """The file system with one file in it, as linux/fuse.h says it is spoken."""

    def __init__(self, fuse, disk, log, spoilt=(0, 0)):
        self.fuse, self.log, self.spoilt = fuse, log, spoilt
        self.bytes = mmap.mmap(disk, SIZE)

    def attributes(self, node):
        mode, size = (0o40755, 4096) if node == ROOT else (0o100600, SIZE)
        return struct.pack("=6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def record(self, what, length, where, data=b""):
        os.writev(self.log, [RECORD.pack(what, length, where), data])

    def answer(self, opcode, node, body):
        """The bytes of an answer; a negative errno; or None: nobody waits for one."""
        if opcode == INIT:
            major, minor, readahead, _ = struct.unpack_from("=4I", body)
            flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES
            return struct.pack("=4IHHIIHHI", major, min(minor, 38), readahead, flags, 16, 12, 1 << 20, 1, 256, 0,
                               0).ljust(64, b"\0")
        if opcode == LOOKUP:
            if body.rstrip(b"\0") != b"disk":
                return -errno.ENOENT
            return struct.pack("=4QII", FILE, 0, LONG, LONG, 0, 0) + self.attributes(FILE)
        if opcode in (GETATTR, SETATTR):
            return struct.pack("=QII", LONG, 0, 0) + self.attributes(node)
        if opcode == OPEN:
            return struct.pack("=QII", 0, 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            if offset < self.spoilt[1] and offset + size > self.spoilt[0]:
                return -errno.EIO
            return self.bytes[offset:offset + size]
        if opcode == WRITE_IN:
            _, offset, size = struct.unpack_from("=QQI", body)
            data = body[40:40 + size]
            self.bytes[offset:offset + size] = data
            self.record(WRITE, size, offset, data)
            return struct.pack("=II", size, 0)
        if opcode == FALLOCATE:
            _, offset, length, mode = struct.unpack_from("=QQQI", body)
            if not mode & PUNCH_OR_ZERO:
                return -errno.EOPNOTSUPP
            self.bytes[offset:offset + length] = bytes(length)
            self.record(ZERO, length, offset)
            return b""
        if opcode == FSYNC:
            self.record(FLUSH, 0, 0)
            return b""
        if opcode == STATFS:
            return bytes(80)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return None
        return b"" if opcode in (RELEASE, FLUSH_IN, DESTROY) else -errno.ENOSYS

    def serve(self):
        while True:
            try:
                request = os.read(self.fuse, (1 << 20) + 4096)
            except OSError as e:
                if e.errno == errno.ENODEV:
                    return  # unmounted
                if e.errno == errno.EPERM:
                    time.sleep(0.005)  # not mounted yet
                if e.errno in (errno.EPERM, errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                raise
            _, opcode, unique, node = struct.unpack_from("=IIQQ", request)
            answer = self.answer(opcode, node, request[40:])
            if answer is None:
                continue
            error, data = (answer, b"") if isinstance(answer, int) else (0, answer)
            with contextlib.suppress(FileNotFoundError):  # who asked was interrupted
                os.writev(self.fuse, [struct.pack("=IiQ", 16 + len(data), error, unique), data])


def missing(kind):
    """Why there can be no such disk here; or None."""
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if not shutil.which(MAKE[kind][0], path="/usr/sbin:/usr/bin:/sbin:/bin"):
        return f"no {MAKE[kind][0]}"
    with open("/proc/filesystems", encoding="utf-8") as f:
        return None if f"\t{kind}\n" in f.read() else f"the kernel has no {kind}"


class RecordedDisk:
    def __init__(self, t, kind):
        self.kind = kind
        self.place = os.path.join("/dev/shm", f"disk-{kind}")  # the sandbox's own: gone with it
        self.directory = os.path.join(self.place, "mounted")
        for name in ("fuse", "mounted", "cut"):
            os.makedirs(os.path.join(self.place, name))
        self.base, self.log, self.spoilt = self.path("base"), self.path("log"), (0, 0)
        with open(self.base, "wb") as f:
            f.truncate(SIZE)
        run(*MAKE[kind], self.base)
        run("cp", "--sparse=always", self.base, self.path("now"))
        self.serve()

    def path(self, name):
        return os.path.join(self.place, name)

    def serve(self):
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        if os.fork() == 0:
            try:
                disk = os.open(self.path("now"), os.O_RDWR)
                log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                Server(fuse, disk, log, self.spoilt).serve()
            finally:
                os._exit(0)
        sandbox.mount("disk", self.path("fuse"), "fuse", 0, f"fd={fuse},rootmode=40000,user_id=0,group_id=0")
        os.close(fuse)

    def mount(self):
        run("mount", "-t", self.kind, "-o", "loop", self.path("fuse/disk"), self.directory)

    def unmount(self):
        run("umount", self.directory)
        run("umount", self.path("fuse"))

    def spoil(self, start, end):
        self.spoilt = start, end

    def again(self):
        self.unmount()
        self.serve()
        self.mount()

    def position(self):
        """So much was recorded until now. What a step does is between the positions before it and after it."""
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def records(self):
        """(position behind it, what, length, where, position of its bytes) of each."""
        at, end = 0, os.path.getsize(self.log)
        with open(self.log, "rb") as f:
            while at < end:
                f.seek(at)
                what, length, where = RECORD.unpack(f.read(RECORD.size))
                data = at + RECORD.size
                at = data + (length if what == WRITE else 0)
                yield at, what, length, where, data

    def cuts(self, positions):
        """A cut behind the last record that ends at or before each position; for each, some lose nothing."""
        records = list(self.records())
        durable = open(self.base, "r+b")
        settled = 0
        for position in sorted(positions):
            passed = [i for i, r in enumerate(records) if r[0] <= position]
            last = len(passed)
            flush = next((i for i in range(last - 1, settled - 1, -1) if records[i][1] == FLUSH), settled)
            self.apply(durable, records[settled:flush])
            settled = flush
            durable.flush()
            late = [r for r in records[flush:last] if r[1] != FLUSH]
            kept = late if random.random() < 0.3 else [r for r in late if random.random() < 0.5]
            yield self.cut(position, kept, f"{self.kind}: record {last} of {len(records)}, {len(kept)} of {len(late)} "
                                           "writes since the last flush")
        durable.close()

    def apply(self, file, records):
        with open(self.log, "rb") as log:
            for _, what, length, where, data in records:
                if what == FLUSH:
                    continue
                log.seek(data)
                file.seek(where)
                file.write(log.read(length) if what == WRITE else bytes(length))

    @contextlib.contextmanager
    def cut(self, position, kept, how):
        image, directory = self.path("image"), self.path("cut")
        run("cp", "--sparse=always", self.base, image)
        with open(image, "r+b") as f:
            self.apply(f, kept)
        if self.kind == "btrfs":  # it would take the disk for a newer one that it has seen
            subprocess.run(["btrfs", "device", "scan", "--forget"], check=False, capture_output=True)
        run("mount", "-t", self.kind, "-o", "loop", image, directory)
        try:
            yield position, directory, how
        finally:
            run("umount", directory)
            os.unlink(image)

    def remove(self):
        shutil.rmtree(self.place, ignore_errors=True)


def run(*argv):
    done = subprocess.run(argv, check=False, capture_output=True, text=True,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
