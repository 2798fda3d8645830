"""Slow shared storage: an ext4 on a loop device whose file lies in memory, read no faster than the
blkio controller of cgroup v1 lets everything in our own cgroup. The mount ends with our mount
namespace, the loop device with the mount; the cgroup is removed by who made it."""

import ctypes
import os
import subprocess
import time

MIB = 1 << 20
BLKIO = "/sys/fs/cgroup/blkio"
# Bytes and requests a second; 0: as many as there are. 1 Gbit/s less its framing; a disk.
RATES = {"network": (117 * MIB, 0), "disk": (150 * MIB, 1500)}


def rate_of(text):
    """`network`, `disk`, or MiB a second with requests a second behind a comma."""
    if text in RATES:
        return RATES[text]
    mib, _, requests = text.partition(",")
    return int(float(mib) * MIB), int(requests or 0)


def command(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


# --- the cgroup: made and removed by the process outside --------------------------------

def cgroup_make(pid):
    if not os.path.exists(f"{BLKIO}/blkio.throttle.read_bps_device"):
        raise RuntimeError(f"{BLKIO}: no blkio controller of cgroup v1 that can throttle")
    for name in os.listdir(BLKIO):  # left by one that was killed outright
        if name.startswith("fsnap-warm.") and not os.path.exists("/proc/" + name.split(".")[1]):
            cgroup_remove(f"{BLKIO}/{name}")
    path = f"{BLKIO}/fsnap-warm.{pid}"
    os.mkdir(path)
    return path


def cgroup_remove(path):
    for _ in range(100):  # the last of its processes may still be on their way out
        try:
            os.rmdir(path)
            return
        except OSError:
            time.sleep(0.05)


# --- inside --------------------------------------------------------------------------------

class Storage:
    def __init__(self, work, cgroup, size, rate):
        self.cgroup, self.image = cgroup, os.path.join(work, "storage.ext4")
        self.directory = os.path.join(work, "storage")
        os.mkdir(self.directory)
        with open(self.image, "wb") as f:
            f.truncate(size + size // 16 + 64 * MIB)
        command("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", self.image)
        # `-o loop`: the device goes away with its last mount, whatever becomes of us.
        command("mount", "-o", "loop,noatime", self.image, self.directory)
        self.number = os.stat(self.directory).st_dev
        self.device = f"{os.major(self.number)}:{os.minor(self.number)}"
        with open(f"{cgroup}/cgroup.procs", "w", encoding="ascii") as f:
            f.write("0")
        self.rate = rate
        self.throttle(rate)

    def throttle(self, rate):
        for key, value in zip(("bps", "iops"), rate):
            with open(f"{self.cgroup}/blkio.throttle.read_{key}_device", "w",
                      encoding="ascii") as f:
                f.write(f"{self.device} {value}")

    def path(self, name):
        return os.path.join(self.directory, name)

    def make_file(self, name, size):
        """Written, not a hole, so every page of it must come from the device; and in the cache."""
        block = os.urandom(MIB)
        with open(self.path(name), "wb") as f:
            for _ in range(size // MIB):
                f.write(block)
            f.flush()
            os.fsync(f.fileno())
        return self.path(name)

    def fill(self, path):
        """As if somebody had read it once, long ago: all of it is cached, nothing of it hot."""
        forget(path)
        self.throttle((0, 0))
        # In long reads: one that begins where the last has ended touches a folio a second time.
        with open(path, "rb", buffering=0) as f:
            while f.read(64 * MIB):
                pass
        self.throttle(self.rate)

    def read_bytes(self):
        """Since the device was made."""
        with open(f"/sys/dev/block/{self.device}/stat", encoding="ascii") as f:
            return int(f.read().split()[2]) * 512


def forget(path):
    """Takes a file out of the page cache: of this file alone, others use the machine, too."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        for _ in range(60):
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            left = cached(f.fileno())
            if not left:
                return
            time.sleep(0.05)  # pages on their way from the device cannot be taken away
    raise RuntimeError(f"{path}: {left >> 10} KiB stay in the page cache")


def cached(fd):
    """Bytes of a file in the page cache: cachestat(2), Linux 6.5."""
    window, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(451), fd, window, found, 0):
        return 0  # older: POSIX_FADV_DONTNEED is taken at its word
    return found[0] * 4096
