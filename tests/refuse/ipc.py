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


PROGRAM = f"""
import sys; sys.path.insert(0, {os.path.dirname(sysv.__file__)!r}); import sysv, time
for key in {KEYS}:
    at = sysv.libc.shmat(sysv.libc.shmget(key, 4096, 0o1600), None, 0)
    sysv.ctypes.memset(at, 7, 4096)
if len(sys.argv) > 1:
    sysv.set_value(sysv.libc.semget({KEYS[0]}, 2, 0o1600), 0, 5)
    sysv.send(sysv.libc.msgget({KEYS[0]}, 0o1600), b"hello")
open('ready', 'w').close(); time.sleep(1000)
"""


def holder(t, *more):
    """A tree with two segments, and perhaps a set and a queue, dumped and killed."""
    if os.path.exists(t.path("ready")):
        os.unlink(t.path("ready"))
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM, *more], ready="ready")
    image = t.dump(pid, "--kill")["image"]
    left = {row["key"]: row["shmid"] for row in sysv.objects("shm")}
    t.expect("segments left behind", set(KEYS), set(left))
    return image, [left[key] for key in KEYS]


def objects():
    columns = {"shm": ("shmid", "key", "size", "nattch"), "sem": ("semid", "key", "nsems"),
               "msg": ("msqid", "key", "qnum", "lspid")}
    return sorted((sort, *(row[name] for name in names))
                  for sort, names in columns.items() for row in sysv.objects(sort))


def refused(t, what, image, *words):
    before = objects()
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json"), 1, "RESTORE_STEP", *words)
    t.expect(f"{what}: objects are as before", before, objects())


def choose(sort, number):
    with open(f"/proc/sys/kernel/{sort}_next_id", "w") as f:
        f.write(str(number))


def segments(t):
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

    choose("shm", ids[1])
    t.expect("a stranger with its number", ids[1], libc.shmget(0x77, 4096, CREATE | 0o600))
    refused(t, "another with its number", image, f"memory {ids[1]} ", "is another one")
    sysv.remove_all()

    # Another one in its slot: the kernel would give the next number that is free.
    choose("shm", ids[1] + 32768)
    t.expect("a stranger in its slot", ids[1] + 32768, libc.shmget(0x77, 4096, CREATE | 0o600))
    refused(t, "another in its slot", image, f"memory {ids[1]} ", "File exists")
    sysv.remove_all()

    pid = t.restore(image)["pid"]
    t.expect("segments after all", sorted(("shm", n, k, 4096, 1) for n, k in zip(ids, KEYS)), objects())
    os.kill(pid, 9)
    t.until("its end", lambda: not any(row["nattch"] for row in sysv.objects("shm")))
    sysv.remove_all()


def sets_and_queues(t):
    image, _ = holder(t, "more")
    semid, msqid = sysv.objects("sem")[0]["semid"], sysv.objects("msg")[0]["msqid"]

    # The harness, which lives, has used them since.
    sysv.set_value(semid, 1, 3)
    refused(t, "a set used by others", image, f"semaphore set {semid} ", f"process {os.getpid()} has used")
    libc.semctl(semid, 0, sysv.IPC_RMID)
    sysv.send(msqid, b"a stranger's")
    refused(t, "a queue used by others", image, f"message queue {msqid} ", f"process {os.getpid()} has used")
    libc.msgctl(msqid, sysv.IPC_RMID, None)

    sysv.remove_all()
    libc.msgget(KEYS[0], CREATE | 0o600)
    refused(t, "another queue with its key", image, f"message queue {msqid} ", "File exists")
    sysv.remove_all()
    libc.semget(KEYS[0], 2, CREATE | 0o600)
    refused(t, "another set with its key", image, f"semaphore set {semid} ", "File exists")
    sysv.remove_all()

    pid = t.restore(image)["pid"]
    t.expect("value", 5, libc.semctl(semid, 0, sysv.GETVAL))
    t.expect("message", b"hello", sysv.receive(msqid))
    os.kill(pid, 9)


def body(t):
    segments(t)
    sets_and_queues(t)


trial.main(body)
