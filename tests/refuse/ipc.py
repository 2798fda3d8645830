#!/usr/bin/python3
"""System V objects at a restore that are somebody else's: their number or key taken, in use by others.
Refused with what to do, the stranger's object is as it was, and what was made until then is gone."""

import ctypes
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import sysv  # noqa: E402
import trial  # noqa: E402
from sysv import libc  # noqa: E402

CREATE = 0o1000 | 0o2000  # IPC_CREAT | IPC_EXCL
KEYS = (0x5eed1001, 0x5eed1002)


def holder(t):
    """A tree with two segments, dumped and killed."""
    program = (f"import sys; sys.path.insert(0, {os.path.dirname(sysv.__file__)!r}); import sysv, time\n"
               f"for key in {KEYS}:\n"
               "    at = sysv.libc.shmat(sysv.libc.shmget(key, 4096, 0o1600), None, 0)\n"
               "    sysv.ctypes.memset(at, 7, 4096)\n"
               "open('ready', 'w').close(); time.sleep(1000)")
    pid = t.start(["/usr/bin/python3", "-c", program], ready="ready")
    image = t.dump(pid, "--kill")["image"]
    left = {row["key"]: row["shmid"] for row in sysv.objects("shm")}
    t.expect("segments left behind", set(KEYS), set(left))
    return image, [left[key] for key in KEYS]


def segments():
    return sorted((row["shmid"], row["key"], row["size"], row["nattch"]) for row in sysv.objects("shm"))


def refused(t, what, image, *words):
    before = segments()
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json"), 1, "RESTORE_STEP", *words)
    t.expect(f"{what}: segments are as before", before, segments())


def body(t):
    image, ids = holder(t)

    at = libc.shmat(ids[1], None, 0)
    ctypes.memset(at, 9, 4096)
    refused(t, "attached by others", image, f"memory {ids[1]} ", "is attached 1 times")
    t.expect("what they have written", b"\t" * 4096, ctypes.string_at(at, 4096))
    libc.shmdt(at)

    # Another segment with the second one's key: the first, which was made, goes again.
    sysv.remove_all()
    other = libc.shmget(KEYS[1], 8192, CREATE | 0o600)
    refused(t, "another with its key", image, f"memory {ids[1]} ", "File exists")
    libc.shmctl(other, sysv.IPC_RMID, None)

    with open("/proc/sys/kernel/shm_next_id", "w") as f:
        f.write(str(ids[1]))
    t.expect("a stranger with its number", ids[1], libc.shmget(0x77, 4096, CREATE | 0o600))
    refused(t, "another with its number", image, f"memory {ids[1]} ", "is another one")
    sysv.remove_all()

    # Another one in its slot: the kernel would give the next number that is free.
    with open("/proc/sys/kernel/shm_next_id", "w") as f:
        f.write(str(ids[1] + 32768))
    t.expect("a stranger in its slot", ids[1] + 32768, libc.shmget(0x77, 4096, CREATE | 0o600))
    refused(t, "another in its slot", image, f"memory {ids[1]} ", "File exists")
    sysv.remove_all()

    pid = t.restore(image)["pid"]
    t.expect("segments after all", sorted((n, k, 4096, 1) for n, k in zip(ids, KEYS)), segments())
    os.kill(pid, 9)


trial.main(body)
