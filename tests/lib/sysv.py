"""System V objects between a dump and its restore: gone, or touched by somebody else."""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]
IPC_RMID = 0


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
