"""A place of its own for one test: PID, mount, network and IPC namespaces.

The test's body runs as process 1 in there, so every orphan comes to it, PIDs of
earlier tests cannot be in the way, and nothing outlives it.
"""

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback

import children

SKIP = 77
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x8000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def mount(source, target, kind, flags=0, data=""):
    check(libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags),
                     data.encode()), f"mount {kind} on {target}")


def swap_off_below(directory):
    """Swap belongs to the whole system: what a test that died has left is ended."""
    with open("/proc/swaps", encoding="utf-8") as f:
        for line in f.readlines()[1:]:
            if line.startswith(directory + "/"):
                libc.swapoff(line.split()[0].encode())


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(s, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def skip(reason):
    """Ends the test as not runnable here."""
    print(f"skip: {reason}", flush=True)
    sys.stdout.flush()
    os._exit(SKIP)


def run(body, timeout=60, stoppable=False):
    """Runs body() as process 1 of new namespaces; returns the status to exit with. Of one that is stoppable the first
    SIGINT or SIGTERM reaches the body, which has a handler for it; the next ends it, as it does others."""
    if os.geteuid() != 0:
        skip("needs root: it makes namespaces and restores other users' processes")
    sys.stdout.flush()
    sys.stderr.flush()
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET), "unshare")
    pid = os.fork()
    if pid == 0:
        first_process(body)
    pidfd = os.pidfd_open(pid)
    stop = {"by": None, "asked": not stoppable}

    def end(number, _frame):
        if not stop["asked"]:
            stop["asked"] = True
            os.kill(pid, number)
            return
        stop["by"] = f"signal {number}"
        os.kill(pid, signal.SIGKILL)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    timeout *= children.PATIENCE
    if not wait_readable(pidfd, timeout):
        stop["by"] = f"time limit of {timeout} s"
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    if stop["by"]:
        print(f"FAIL: ended by {stop['by']}", flush=True)
        return 1
    return os.waitstatus_to_exitcode(status)


def wait_readable(fd, timeout):
    deadline = time.monotonic() + timeout
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            return True
    return False


def open_up(top):
    """A directory that only its owner may enter: the same entries, in one that everybody may."""
    old = os.open(top, os.O_PATH | os.O_DIRECTORY)
    entries = [(e.name, e.is_dir(follow_symlinks=False), e.is_symlink() and os.readlink(e.path))
               for e in os.scandir(top)]
    mount("none", top, "tmpfs", 0, "mode=755")
    for name, is_directory, link in entries:
        target = os.path.join(top, name)
        if link:
            os.symlink(link, target)
            continue
        os.mkdir(target) if is_directory else open(target, "w").close()
        mount(f"/proc/self/fd/{old}/{name}", target, "none", MS_BIND | MS_REC)
    os.close(old)


def let_others_reach(*paths):
    """In here everybody may walk to these directories: a checkout may lie in a home that is its owner's
    alone, but some tests run fsnap and its targets as somebody else. Called inside the sandbox."""
    for path in paths:
        parts = path.split("/")
        for n in range(2, len(parts) + 1):
            above = "/".join(parts[:n])
            if not os.stat(above).st_mode & 1:
                open_up(above)


def first_process(body):
    status = 99
    try:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        os.setsid()  # else the session's number would be 0, as seen from in here
        mount("none", "/", "none", MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
        # Terminals have numbers and shared memory has names: no other test may have them.
        mount("tmpfs", "/dev/shm", "tmpfs", data="mode=1777")
        mount("devpts", "/dev/pts", "devpts", data="newinstance,mode=600,ptmxmode=666")
        mount("/dev/pts/ptmx", "/dev/ptmx", "none", MS_BIND)
        loopback_up()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        status = body()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 99
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)
