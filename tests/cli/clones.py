#!/usr/bin/python3
"""Copies of one image side by side, beside the original: with numbers of their own, or each in a PID namespace
with those it had; ports that are moved, networks of their own; what a copy cannot have is said with the option
that helps; limits are looked at before the first copy is made, and all come or none. Without root, too."""

import os
import resource
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
from copies import PROGRAM, ask, end  # noqa: E402
import sandbox  # noqa: E402
import sysv  # noqa: E402
import trial  # noqa: E402

PORT = 7654


def in_namespaces_of(pid, function, *args):
    """What function(*args) returns in the network of that process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            sandbox.check(sandbox.libc.setns(fd, 0), "setns")
            os.write(writer, repr(function(*args)).encode())
        except BaseException as e:
            os.write(writer, repr(e).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as f:
        text = f.read()
    children.wait(child, 10)
    try:
        return eval(text, {})
    except NameError:
        return text


def port_of(copy):
    return int(copy["listen"][0].split("=")[1])


def clones(t, image, n, *more, **how):
    result = t.fsnap.run("restore", image, "--clones", n, "--json", *more, **how)
    if not t.expect(f"{n} copies {more}: status", 0, result.status):
        t.note(str(result))
        return []
    return result.json["clones"]


def refused(t, image, code, options, word, *more):
    """What a copy cannot have: the error says what, and which option would help."""
    result = t.fsnap.run("restore", image, "-d", "--json", *more)
    t.expect_error(result, result.status, code, word)
    t.expect(f"{code} {word}: the hint names {options}: {result.hint}", [], [x for x in options if x not in result.hint])


def beside(t, image, original, secret):
    refused(t, image, "PID_TAKEN", ("--new-pids", "--pid-ns"), str(original))
    refused(t, image, "ADDRESS_TAKEN", ("--listen", "--net-ns"), str(PORT), "--new-pids")
    copies = clones(t, image, 10, "--listen", f"{PORT}=0")
    pids = [x["pid"] for x in copies]
    t.expect("how many", 10, len(set(pids) - {original}))
    t.expect("their numbers", list(range(1, 11)), [x["copy"] for x in copies])
    for copy in copies:
        pid, child, its, works, _ = ask(port_of(copy))
        t.expect("who answers", copy["pid"], pid)
        t.expect("it is the same program", secret, its)
        t.expect_true("with threads and child at work", works and child in children.tree(pid))
    t.expect("the original", (original, secret, True), tuple(ask(PORT)[i] for i in (0, 2, 3)))
    end(copies)


def in_pid_namespaces(t, image, original, secret, uid=None):
    more = ["--user-ns"] if uid else ["--pid-ns"]
    copies = clones(t, image, 2, *more, "--net-ns", "--cwd", "/", uid=uid)
    for copy in copies:
        t.expect_true("the root is another than its init", copy["root"] != copy["pid"])
        if uid:  # who is root here may not enter it: it shows as being alive
            t.expect_true("it runs", os.path.exists(f"/proc/{copy['root']}"))
            continue
        pid, child, its, works, cwd = in_namespaces_of(copy["root"], ask, PORT)
        t.expect("its number", original, pid)
        t.expect("its secret", secret, its)
        t.expect("its directory", "/", cwd)
        t.expect_true("all at work", works)
    for copy in copies:
        os.kill(copy["root"], signal.SIGTERM)
        t.until("with the root its namespace ends", lambda: not os.path.exists(f"/proc/{copy['pid']}"))
    end(copies)


def its_root_is_told(t, image):
    """What is printed is the tree's root as the caller sees it, and not the first process of its namespace."""
    result = t.fsnap.run("restore", image, "-d", "--pid-ns", "--net-ns", "--cwd", "/")
    if not t.expect(f"restored: {result.err}", 0, result.status):
        return
    root = int(result.out)
    with open(f"/proc/{root}/status", encoding="ascii") as f:
        init = int(next(x.split()[1] for x in f if x.startswith("PPid:")))
    with open(f"/proc/{root}/comm", encoding="ascii") as f:
        t.expect("who has the number that was printed", "python3", f.read().strip())
    os.kill(root, signal.SIGTERM)
    t.until("with it its namespace ends", lambda: not os.path.exists(f"/proc/{init}") or children.reap())


def all_or_none(t, image):
    before = set(children.tree(os.getpid()))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 7103))
        s.listen()
        result = t.fsnap.run("restore", image, "--clones", 5, "--json", "--listen", f"{PORT}=710{{n}}")
    t.expect_error(result, 1, "ADDRESS_TAKEN", "7103", "copy 3")
    t.expect_true(f"the hint speaks of the port that the image has: {result.hint}", f"--listen {PORT}=0" in result.hint)
    t.until("nothing is left of those before", lambda: not set(children.tree(os.getpid())) - before)
    t.expect_error(t.fsnap.run("restore", image, "--clones", 900000, "--json", "--net-ns"), 1, "SYSTEM", "900000")
    t.expect_error(t.fsnap.run("restore", image, "--clones", "x", "--json"), 2, "USAGE")
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json", "--new-pids", "--listen", "5=6"), 2, "USAGE", "port 5")
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json", "--net-ns", "--new-pids", "--env", "PATH2=x"), 2,
                   "USAGE", "PATH2")
    copies = clones(t, image, 2, "--listen", f"{PORT}=720{{n}}", "--env", "HOME={n}")
    t.expect("ports by number", [7201, 7202], [port_of(x) for x in copies])
    for n, copy in enumerate(copies, 1):
        with open(f"/proc/{copy['pid']}/environ", "rb") as f:
            t.expect("a variable", True, f"HOME={n}".encode() in f.read().split(b"\0"))
        t.expect_true(f"it is said that Python does not look there: {copy['notes']}",
                      any("--env" in note and "Python" in note for note in copy["notes"]))
    end(copies)


def files_of_their_own(t):
    """A directory that goes with the image: each copy has its own of it."""
    os.mkdir(t.path("data"))
    with open(t.path("data/log"), "w") as f:
        f.write("begin\n")
    loop = "exec 5>>data/log; touch writing; while :; do echo $$ >&5; sleep 0.02; done"
    pid = t.start(["/bin/sh", "-c", loop], ready="writing")
    image = t.dump(pid, "--with", t.path("data"))["image"]
    copies = clones(t, image, 3, "--with", f"{t.path('data')}={t.path('data-{n}')}")
    for n, copy in enumerate(copies, 1):
        t.expect("its file", t.path(f"data-{n}/log"), os.readlink(f"/proc/{copy['pid']}/fd/5"))
        t.expect_true("with what was in it", open(t.path(f"data-{n}/log")).readline() == "begin\n")
    end(copies)
    for each in children.tree(pid):
        os.kill(each, signal.SIGKILL)


def with_names(t):
    """A Unix socket, a FIFO that is gone, a message queue and a System V segment: what has a name."""
    program = """
import ctypes, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.getcwd() + "/door")
listener.listen()
data = open("file", "w+")
identity = libc.shmget(0x4711, 8192, 0o1600)
libc.shmat.restype = ctypes.c_void_p
address = libc.shmat(identity, None, 0)
ctypes.memset(address, 65, 8192)
open("named", "w").close()
while True:
    if os.path.exists("look"):
        time.sleep(0.1)
        with open("looked-%d" % os.getpid(), "w") as f:
            f.write("%d %s" % (libc.shmget(0x4711, 8192, 0o600) == identity, ctypes.string_at(address, 3)))
        time.sleep(1000)
    time.sleep(0.01)
"""
    pid = t.start(["/usr/bin/python3", "-c", program], ready="named", name="named")
    image = t.dump(pid)["image"]
    refused(t, image, "ADDRESS_TAKEN", ("--map",), "door", "--new-pids", "--ipc-ns")
    more = ("--map", f"{t.path('door')}={t.path('door')}-{{n}}")
    copies = clones(t, image, 2, "--ipc-ns", *more)
    os.rename(t.path("file"), t.path("elsewhere"))
    refused(t, image, "FILE_MISSING", ("--map",), "file", "--new-pids", "--ipc-ns", "--map",
            f"{t.path('door')}={t.path('door')}-9")
    os.rename(t.path("elsewhere"), t.path("file"))
    for copy in copies:
        t.expect_true("an IPC namespace of its own", os.readlink(f"/proc/{copy['pid']}/ns/ipc") !=
                      os.readlink("/proc/self/ns/ipc"))
    open(t.path("look"), "w").close()
    for each in [pid] + [x["pid"] for x in copies]:
        t.until("the segment of its own", lambda e=each: open(t.path(f"looked-{e}")).read() == "1 b'AAA'")
    end(copies)
    os.kill(pid, signal.SIGKILL)
    sysv.remove_all()


def without_root(t):
    os.mkdir(t.path("mine"))
    os.chown(t.path("mine"), 1000, 1000)
    store = t.path("mine/store")
    pid = children.spawn(["/usr/bin/python3", "-c", PROGRAM, "7655"], cwd=t.path("mine"), uid=1000, session=True,
                         env=trial.ENVIRONMENT, out="/dev/null")
    children.wait_file(t.path("mine/ready"), pid, 20)
    secret = ask(7655)[2]
    result = t.fsnap.run("--store", store, "dump", "-t", pid, "--json", "--name", "mine", uid=1000)
    if not t.expect("an ordinary user's dump", 0, result.status):
        t.note(str(result))
        return
    t.fsnap.store = store
    copies = clones(t, "mine", 2, "--listen", "7655=0", uid=1000)
    for copy in copies:
        t.expect("an ordinary user's copy", (copy["pid"], secret, True),
                 tuple(ask(port_of(copy))[i] for i in (0, 2, 3)))
    end(copies)
    nice = os.nice(0) + 5
    if nice < 19:  # the tests themselves may be niced
        result = t.fsnap.run("restore", "mine", "-d", "--new-pids", "--listen", "7655=0", "--json", uid=1000,
                             before=lambda: os.nice(5))
        t.expect_error(result, 1, "RESTORE_STEP", "sched_setattr")
        t.expect_true(f"the hint says that fsnap is niced: {result.hint}", f"fsnap runs at nice {nice}" in result.hint)
    probe = children.spawn(["/usr/bin/unshare", "-U", "true"], uid=1000, out="/dev/null")
    if children.wait(probe, 10) == 0:
        in_pid_namespaces(t, "mine", pid, secret, uid=1000)

    def few():
        resource.setrlimit(resource.RLIMIT_NPROC, (20, 20))

    result = t.fsnap.run("restore", "mine", "--clones", 9, "--json", "--listen", "7655=0", uid=1000, before=few)
    t.expect_error(result, 1, "SYSTEM", "limit on processes", "9 copies")


def body(t):
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM, str(PORT)], ready="ready")
    if t.control:
        t.expect("control", pid, ask(PORT)[0])
        return
    secret = ask(PORT)[2]
    image = t.dump(pid)["image"]
    beside(t, image, pid, secret)
    in_pid_namespaces(t, image, pid, secret)
    its_root_is_told(t, image)
    all_or_none(t, image)
    for each in children.tree(pid):
        os.kill(each, signal.SIGKILL)
    files_of_their_own(t)
    with_names(t)
    without_root(t)


trial.main(body)
