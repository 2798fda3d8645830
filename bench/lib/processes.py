"""Processes of the benchmark: bench/run is process 1 of a PID namespace of its own, so every
orphan comes to it, saved PIDs are free again, and nothing outlives it."""

import os
import signal
import subprocess
import sys
import time

STDIN, STDOUT = 0, 1
statuses = {}


def run_inside(script, arguments):
    """Runs script --inside ... as process 1 of new namespaces; returns its exit status."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
               sys.executable, script, "--inside", *arguments]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    inside = subprocess.Popen(command)
    try:
        return inside.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        inside.kill()  # by --kill-child, all of the namespace with it
        inside.wait()


def spawn(argv, out="/dev/null"):
    """Starts argv with nothing of ours but `out`, as the leader of a session."""
    devnull = (os.POSIX_SPAWN_OPEN, STDIN, "/dev/null", os.O_RDONLY, 0)
    output = (os.POSIX_SPAWN_OPEN, STDOUT, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    errors = (os.POSIX_SPAWN_OPEN, 2, out + ".err" if out != "/dev/null" else out,
              os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[devnull, output, errors],
                         setsid=True)
    statuses.pop(pid, None)
    return pid


def wait(pid):
    """The exit status of pid. Everything else that ends meanwhile is reaped too: a dump that
    kills a tree waits for that."""
    while pid not in statuses:
        ended, status = os.waitpid(-1, 0)
        statuses[ended] = os.waitstatus_to_exitcode(status)
    return statuses.pop(pid)


def output_of(argv, out):
    """Runs argv to its end and returns what it printed."""
    status = wait(spawn(argv, out))
    with open(out, encoding="utf-8", errors="replace") as f:
        printed = f.read()
    if status:
        with open(out + ".err", encoding="utf-8", errors="replace") as f:
            raise RuntimeError(f"{' '.join(argv)}: exit status {status}: {f.read()}{printed}")
    return printed


def end_all():
    """Kills and reaps everything but this process."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        statuses.clear()


def wait_until(condition, what, seconds=60):
    """Polls, with pauses that leave the processor to others; returns what condition() does."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"gave up after {seconds} s waiting for {what}")
        time.sleep(0.001)
    return value


def named(comm):
    """A process of that name; 0: there is none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
                if f.read().strip() == comm:
                    return int(pid)
        except OSError:
            pass
    return 0


def ran_ns(pid):
    """How long a process has been on a processor; 0: it is none."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0])
    except OSError:
        return 0


def used_ns(pid):
    """Processor time of all threads a process has had, to a hundredth of a second."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 10**9 // os.sysconf("SC_CLK_TCK")


def busy_share(seconds=0.3):
    """Which part of the whole machine was at work, by whomever, in the next moments."""
    def read():
        with open("/proc/stat", encoding="ascii") as f:
            times = [int(x) for x in f.readline().split()[1:9]]
        return sum(times), times[3] + times[4]

    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def wait_quiet(patience):
    """Waits until others leave the machine alone, at most `patience` seconds; returns how busy it
    was in the end."""
    deadline = time.monotonic() + patience
    while (busy := busy_share()) > 0.1 and time.monotonic() < deadline:
        pass
    return busy
