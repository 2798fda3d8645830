"""System V objects between a dump and its restore: gone, or touched by somebody else."""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]
IPC_RMID, GETVAL, SETVAL = 0, 12, 16


def objects(sort):
    """Rows of /proc/sysvipc/{shm,sem,msg}, by the kernel's names for the columns."""
    with open(f"/proc/sysvipc/{sort}") as f:
        names = f.readline().split()
        return [dict(zip(names, (int(x) for x in line.split()))) for line in f]


def remove_all():
    for row in objects("shm"):
        libc.shmctl(row["shmid"], IPC_RMID, None)
    for row in objects("sem"):
        libc.semctl(row["semid"], 0, IPC_RMID)
    for row in objects("msg"):
        libc.msgctl(row["msqid"], IPC_RMID, None)


def touch_segments():
    for row in objects("shm"):
        at = libc.shmat(row["shmid"], None, 0)
        if at not in (None, ctypes.c_void_p(-1).value):
            ctypes.memset(at, 0x5a, row["size"])
            libc.shmdt(at)


def set_value(semid, number, value):
    if libc.semctl(semid, number, SETVAL, value) < 0:
        raise OSError(ctypes.get_errno(), "semctl")


def send(msqid, text):
    if libc.msgsnd(msqid, (1).to_bytes(8, "little") + text, len(text), 0) < 0:
        raise OSError(ctypes.get_errno(), "msgsnd")


def receive(msqid):
    """The first message, None if there is none."""
    room = ctypes.create_string_buffer(8 + 8192)
    n = libc.msgrcv(msqid, room, 8192, ctypes.c_long(0), 0o4000)
    return None if n < 0 else room.raw[8:8 + n]
