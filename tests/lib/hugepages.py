"""Huge pages of the system's pool, for as long as a test needs them."""

import contextlib
import fcntl
import os
import tempfile

POOL = "/proc/sys/vm/nr_hugepages"


def add(n):
    """Changes the pool by n pages; returns by how many it has changed. Tests run side by side."""
    with open(os.path.join(tempfile.gettempdir(), "fsnap-tests", ".hugepages"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(POOL) as f:
            before = int(f.read())
        with open(POOL, "w") as f:
            f.write(str(max(0, before + n)))
        with open(POOL) as f:
            return int(f.read()) - before


@contextlib.contextmanager
def pool(n):
    """True, inside, if there are n pages more than before."""
    try:
        added = add(n) if n else 0
    except OSError:
        added = 0
    try:
        yield added >= n
    finally:
        if added:
            add(-added)
