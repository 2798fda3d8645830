"""All waiting goes through here: process 1 of a sandbox reaps orphans as well as its own."""

import os
import signal
import time

statuses = {}

# A sanitized fsnap, or one under valgrind (run-checked), takes memory and time for that: no measure of it is fsnap's.
CHECKED = "FSNAP_REPORTS" in os.environ
PATIENCE = 4 if CHECKED else 1


def reap():
    """Collects what has ended; never blocks."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        statuses[pid] = os.waitstatus_to_exitcode(status)


def spawn(argv, *, out=None, err=None, cwd=None, env=None, uid=None, session=False,
          stdin="/dev/null", before=None):
    """Starts argv with its output appended to the files `out` and `err` (None: the same file,
    or ours); returns the PID."""
    pid = os.fork()
    if pid:
        statuses.pop(pid, None)
        return pid
    try:
        if session:
            os.setsid()
        redirect(stdin, os.O_RDONLY, 0)
        if out:
            redirect(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1)
            if err:
                redirect(err, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 2)
            else:
                os.dup2(1, 2)
        if cwd:
            os.chdir(cwd)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.closerange(3, 1 << 16)  # what whoever started the tests left open is not part of them
        if before:
            before()
        os.execve(argv[0], argv, env if env is not None else dict(os.environ))
    except BaseException as e:
        os.write(2, f"cannot start {argv[0]}: {e}\n".encode())
    os._exit(127)


def redirect(path, flags, fd):
    opened = os.open(path, flags, 0o666)
    os.dup2(opened, fd)
    if opened != fd:
        os.close(opened)


def wait(pid, timeout):
    """The exit status of pid (-N: signal N), or None if it has not ended in time."""
    deadline = time.monotonic() + timeout
    while pid not in statuses:
        reap()
        if pid in statuses:
            break
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)
    return statuses.pop(pid)


def end(pid):
    os.kill(pid, signal.SIGKILL)
    wait(pid, 10)


def wait_gone(pids, timeout):
    """Which of pids still exist after timeout; [] is what one hopes for."""
    deadline = time.monotonic() + timeout
    while True:
        reap()
        left = [p for p in pids if os.path.exists(f"/proc/{p}")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.002)


def wait_file(path, pid, timeout):
    """True once path exists; False if pid ended (and is not running) or time ran out first."""
    deadline = time.monotonic() + timeout
    while not os.path.exists(path):
        reap()
        if pid is not None and (pid in statuses or not os.path.exists(f"/proc/{pid}")):
            return os.path.exists(path)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def tree(root):
    """root and all its descendants."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="latin-1") as f:
                    parents[int(name)] = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                pass
    found = [root] if root in parents else []
    for pid in found:
        found += sorted(p for p, parent in parents.items() if parent == pid)
    return found
