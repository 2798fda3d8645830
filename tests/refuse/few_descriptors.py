#!/usr/bin/python3
"""A tree that has more open files than fsnap may open at once, and processes whose highest descriptor is
just below the limit, are restored all the same: connected sockets, epoll, shared and deleted files among
them. Where a number lies beyond the limit nothing can help, and the message says which limit to raise."""

import os
import resource
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

LIMIT, PROCESSES, EACH = 1024, 4, 900

TARGET = """
import os, select, signal, socket, sys
PROCESSES, EACH = %d, %d
shared = os.open("shared", os.O_RDWR | os.O_CREAT)
parent = None
for n in range(1, PROCESSES):
    if os.fork() == 0:
        parent = os.getppid()
        break
else:
    n = 0
files, pairs, pipes, gone = [], [], [], []
poll = select.epoll()
while len(files) + 2 * len(pairs) + 2 * len(pipes) + len(gone) < EACH:
    i = len(files)
    files.append(os.open(f"f{n}.{i}", os.O_RDWR | os.O_CREAT))
    os.write(files[-1], b"%%d" %% i)
    a, b = socket.socketpair()
    a.send(b"%%d" %% i); pairs.append((a, b)); poll.register(b)
    r, w = os.pipe()
    os.write(w, b"%%d" %% i); pipes.append((r, w))
    gone.append(os.open(f"g{n}.{i}", os.O_RDWR | os.O_CREAT)); os.unlink(f"g{n}.{i}")
    os.write(gone[-1], b"%%d" %% i)
os.dup2(files[0], 1015)
def check(*_):
    good = 0
    for i in range(len(files)):
        word = b"%%d" %% i
        good += (os.lseek(files[i], 0, 1) == len(word) and os.pread(files[i], 9, 0) == word
                 and pairs[i][1].recv(9) == word and os.read(pipes[i][0], 9) == word
                 and os.pread(gone[i], 9, 0) == word and os.fstat(gone[i]).st_nlink == 0)
    good += len(poll.poll(0, 2000)) == len(pairs) and os.lseek(1015, 0, 1) == 1
    os.write(shared, b"process %%d: %%d of %%d\\n" %% (n, good, len(files) + 1))
signal.signal(signal.SIGUSR1, check)
open(f"ready.{n}", "w").close()
while True:
    signal.pause()
""" % (PROCESSES, EACH)


def few(number):
    def before():
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    return before


def body(t):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < LIMIT:
        t.note("skip: the limit on open files is too low")
        sys.exit(77)
    pid = t.start(["/usr/bin/python3", "-c", TARGET], before=few(LIMIT))
    t.until("all are ready", lambda: all(os.path.exists(t.path(f"ready.{n}")) for n in range(PROCESSES)))
    result = t.fsnap.run("dump", "-t", pid, "--kill", "--json", before=few(LIMIT))
    if not t.expect("dump: exit status", 0, result.status):
        raise trial.Stop(str(result))
    image = result.json["image"]
    children.wait_gone([pid], 5)
    children.statuses.pop(pid, None)
    before = set(os.listdir("/proc"))
    for options in (["--json"], ["--explain", "--json"]):
        t.expect_error(t.fsnap.run("restore", image, "-d", *options, before=few(1000)), 1, "SYSTEM", "1015",
                       "1000")
    children.reap()
    t.expect("processes left", [], [p for p in set(os.listdir("/proc")) - before if p.isdigit()])
    result = t.fsnap.run("restore", image, "-d", "--json", before=few(LIMIT + 12))
    if not t.expect("restore: exit status", 0, result.status):
        raise trial.Stop(str(result))
    tree = children.tree(pid)
    t.expect("processes, and no helper of fsnap's", PROCESSES, len(tree))
    for each in tree:
        t.until(f"process {each} is asleep",
                lambda each=each: open(f"/proc/{each}/syscall").read().strip() != "running")
        os.kill(each, signal.SIGUSR1)
    t.until("all have looked", lambda: open(t.path("shared")).read().count("\n") == PROCESSES)
    lines = sorted(open(t.path("shared")).read().splitlines())
    for line in lines:
        good, of = line.split()[2:5:2]
        t.expect(line, of, good)
    for each in tree:
        os.kill(each, signal.SIGKILL)


trial.main(body)
