#!/usr/bin/python3
"""Restores where things are not what they were: files that have moved (--map), that have changed
(--changed), descriptors handed in (--fd), ends that were declared external (--external). What is said
wrongly or is missing is refused with the option that helps, and leaves nothing behind."""

import os
import shutil
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

IMAGE, USAGE, GENERAL, REFUSED = 6, 2, 1, 3

# Says what it reads from descriptor 5 to descriptor 1, a line for each SIGUSR1; its child likewise.
TALKER = """
import os, signal, sys, time
child = os.fork()
name = b"root" if child else b"child"
def say(*_):
    os.write(1, name + b" " + os.read(5, 100) + b"\\n")
signal.signal(signal.SIGUSR1, say)
open("ready" if child else "ready.child", "w").close()
while True:
    time.sleep(1000)
"""

# Holds a file, a FIFO, a listener, a watch and a mapping of a directory it works in.
SETTLED = """
import ctypes, mmap, os, signal, socket, time
home = os.getcwd()
watch = ctypes.CDLL(None).inotify_init1(os.O_NONBLOCK)
ctypes.CDLL(None).inotify_add_watch(watch, (home + "/watched").encode(), 0x100)
f = open("data", "r+b"); f.seek(3)
deep = open("deep/inner", "rb")
fifo = os.open("fifo", os.O_RDWR)
listener = socket.socket(socket.AF_UNIX); listener.bind(home + "/socket"); listener.listen()
m = mmap.mmap(f.fileno(), 0)
def check(*_):
    client = socket.socket(socket.AF_UNIX); client.connect(listener.getsockname())
    os.write(fifo, b"x")
    open("watched/new", "w").close()
    os.unlink("watched/new")
    seen = b"new" in os.read(watch, 4096)
    text = " ".join([str(seen), f.read(3).decode(), deep.read().decode(), listener.getsockname(),
                     os.readlink("/proc/self/exe"), os.getcwd(), chr(m[0])])
    open("said.new", "w").write(text); os.rename("said.new", "said")
signal.signal(signal.SIGUSR1, check)
open("ready", "w").close()
while True:
    time.sleep(1000)
"""


def redirected(*opened):
    def before():
        for path, flags, fd in opened:
            children.redirect(path, flags, fd)
    return before


def end(pid):
    for each in children.tree(pid):
        os.kill(each, signal.SIGKILL)
    children.wait(pid, 5)


def refused(t, image, options, status, code, *words, before=None):
    found = set(os.listdir("/proc"))
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json", *options, before=before), status, code,
                   *words)
    children.reap()
    left = [p for p in set(os.listdir("/proc")) - found if p.isdigit()]
    t.expect(f"{options}: processes left", [], left)


def restored(t, image, *options, before=None):
    result = t.fsnap.run("restore", image, "-d", "--json", *options, before=before)
    if not t.expect(f"{options}: exit status", 0, result.status):
        raise trial.Stop(str(result))
    return result.json


def poke(t, pid):
    """SIGUSR1 when it is back in its call: before, Python would see it only when that returns."""
    def is_asleep():
        with open(f"/proc/{pid}/syscall") as f:
            return f.read().strip() != "running"
    t.until(f"process {pid} is asleep", is_asleep, 5)
    os.kill(pid, signal.SIGUSR1)


def notes(report):
    """What a report notes of the files themselves; what is read ahead is another matter."""
    return [note for note in report.get("notes", []) if "hot pages" not in note]


def said(t, path, word):
    return t.until(f"{path} says {word!r}",
                   lambda: os.path.exists(path) and word in open(path).read(), 5)


# --- moved ---------------------------------------------------------------------------

def moved(t):
    home = t.path("home")
    os.makedirs(home + "/deep")
    os.makedirs(home + "/watched")
    shutil.copy("/usr/bin/python3", home + "/python")
    for name, text in (("data", "0123456789"), ("deep/inner", "inner")):
        with open(f"{home}/{name}", "w") as f:
            f.write(text)
    os.mkfifo(home + "/fifo")
    pid = children.spawn([home + "/python", "-c", SETTLED], out=t.path("settled.out"), cwd=home,
                         env=trial.ENVIRONMENT, session=True)
    children.wait_file(home + "/ready", pid, 10)
    image = t.dump(pid, "--kill")["image"]
    other, third = t.path("other=place"), t.path("third")
    os.rename(home, other)
    os.rename(other + "/deep", third)
    refused(t, image, [], GENERAL, "FILE_MISSING", home)
    t.expect_true("the hint says --map", "--map" in t.fsnap.run("restore", image, "-d", "--json").hint)
    t.expect_true("the hint behind a wrong --map names the path that the image has",
                  f"--map {home}/deep/inner=NEW" in t.fsnap.run("restore", image, "-d", "--json", "--map", f"{home}={other}").hint)
    refused(t, image, ["--map", f"{home}={other}"], GENERAL, "FILE_MISSING", other + "/deep/inner",
            f"process {pid}")
    for bad in ("nothing", "relative=/x", "/x=relative", "=", f"{home}="):
        refused(t, image, ["--map", bad], USAGE, "USAGE", bad)
    refused(t, image, ["--map", "/a=/b", "--map", "/a/=/c"], USAGE, "USAGE", "twice")
    os.unlink(other + "/socket")
    # The longest wins, whichever stands first; /hom is no part of it.
    restored(t, image, "--map", f"{home}={other}", "--map", f"{home}/deep={third}", "--map",
             f"{home[:-1]}=/nowhere", "--map", "/=/")
    poke(t, pid)
    said(t, other + "/said", f"True 345 inner {other}/socket {other}/python {other} 0")
    # What lies elsewhere now is saved from there; '=' in OLD is escaped.
    image = t.dump(pid, "--kill")["image"]
    os.rename(other, home)
    os.unlink(home + "/socket")
    os.unlink(home + "/said")
    restored(t, image, "--map", other.replace("=", "\\=") + "=" + home)
    poke(t, pid)
    said(t, home + "/said", f"True 678  {home}/socket {home}/python {home} 0")
    end(pid)


# --- changed --------------------------------------------------------------------------

def changed(t):
    shutil.copy("/usr/bin/tail", t.path("program"))
    with open(t.path("input"), "w") as f:
        f.write("a line\n" * 100)
    pid = t.start([t.path("program"), "-n", "1", "-s", "600", "---disable-inotify", "-f",
                   t.path("input")], name="tail")
    t.until("it shows the last line", lambda: os.path.getsize(t.path("tail.out")))
    image = t.dump(pid, "--kill")["image"]
    # The same program, installed anew.
    os.utime(t.path("program"), (1, 1))
    report = restored(t, image, "--changed", "refuse")
    t.expect("notes when nothing has changed", [], notes(report))
    end(pid)
    with open(t.path("input"), "a") as f:
        f.write("more\n")
    report = restored(t, image)
    t.expect_true(f"a note about the changed file, not {report.get('notes')}",
                  any(t.path("input") in note and "700" in note for note in notes(report)))
    end(pid)
    report = restored(t, image, "--changed", "accept")
    t.expect("notes when changes are accepted", [], notes(report))
    end(pid)
    refused(t, image, ["--changed", "refuse"], GENERAL, "FILE_CHANGED", t.path("input"),
            f"process {pid}", "descriptor")
    refused(t, image, ["--changed", "perhaps"], USAGE, "USAGE", "perhaps")
    # Another program under its name.
    os.rename(t.path("program"), t.path("elsewhere"))
    shutil.copy("/usr/bin/head", t.path("program"))
    for options in ([], ["--changed", "refuse"]):
        refused(t, image, options, GENERAL, "FILE_CHANGED", t.path("program"), "build ID", f"process {pid}")
    for mode in ("warn", "accept"):
        result = t.fsnap.run("restore", image, "--explain", "--changed", mode)
        t.expect(f"another program, --changed {mode}", 0, result.status)
    os.rename(t.path("elsewhere"), t.path("program"))


# --- handed in --------------------------------------------------------------------------

def talker(t, before=None):
    for name in ("ready", "ready.child"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    pid = t.start(["/usr/bin/python3", "-c", TALKER], ready="ready", name="talker", before=before)
    t.until("the child is ready", lambda: os.path.exists(t.path("ready.child")))
    return pid, [p for p in children.tree(pid) if p != pid][0]


def talk(t, pid, child):
    poke(t, pid)
    poke(t, child)


def write(t, name, text):
    with open(t.path(name), "w") as f:
        f.write(text)
    return t.path(name)


def handed(t):
    old = write(t, "old", "old")
    pid, child = talker(t, redirected((old, os.O_RDONLY, 5)))
    image = t.dump(pid, "--kill")["image"]
    new, newer = write(t, "new", "new words"), write(t, "newer", "newer words")
    give = redirected((new, os.O_RDONLY, 7), (newer, os.O_RDONLY, 8),
                      (t.path("out"), os.O_WRONLY | os.O_CREAT, 9))
    # The child has the same open file: it gets the same new one, with one position.
    restored(t, image, "--fd", "5=7", "--fd", "1=9", before=give)
    poke(t, pid)
    said(t, t.path("out"), "root new words\n")
    poke(t, child)
    said(t, t.path("out"), "child \n")
    end(pid)
    os.unlink(t.path("out"))
    restored(t, image, "--fd", "1=9", "--fd", f"{child}:5=8", "--fd", f"{pid}:5=7", before=give)
    talk(t, pid, child)
    said(t, t.path("out"), "root new words\n")
    said(t, t.path("out"), "child newer words\n")
    end(pid)
    for option, word in (("5=6", "6 is not open"), ("44=7", "44"), ("999999:5=7", "999999"),
                         ("x=7", "x=7"), ("5", "5"), ("5=", "5="), ("0:5=7", "0:5=7"), ("5=9", "writing")):
        refused(t, image, ["--fd", option], USAGE, "USAGE", word, before=give)


# --- declared external --------------------------------------------------------------------

def external(t):
    reader, writer = os.pipe()
    # children.spawn closes all from 3 on before before() runs: open it through /proc of this process.
    me = os.getpid()
    pid, child = talker(t, redirected((f"/proc/{me}/fd/{reader}", os.O_RDONLY, 5)))
    t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), REFUSED, "UNSUPPORTED", "outside", f"{pid}",
                   "descriptor 5")
    t.expect_true("the hint says --external",
                  f"--external {pid}:5=" in t.fsnap.run("dump", "-t", pid, "--json").hint)
    for option, word in (("5", "5"), ("x=y", "x=y"), ("5=", "5="), ("77=key", "77"), ("1:5=key", "process 1")):
        t.expect_error(t.fsnap.run("dump", "-t", pid, "--json", "--external", option), USAGE, "USAGE", word)
    image = t.dump(pid, "--kill", "--external", f"{child}:5=feed")["image"]
    refused(t, image, [], GENERAL, "FILE_MISSING", "feed", f"process {pid}", "descriptor 5")
    t.expect_true("the hint says how",
                  "--external feed=" in t.fsnap.run("restore", image, "-d", "--json").hint)
    feed = write(t, "feed", "fed")
    give = redirected((feed, os.O_RDONLY, 7))
    for option, word in (("food=7", "food"), ("feed=6", "6 is not open"), ("feed", "feed"), ("=7", "=7")):
        refused(t, image, ["--external", option], USAGE, "USAGE", word, before=give)
    for options in (["--external", "feed=7"], ["--fd", "5=7"]):
        restored(t, image, *options, before=give)
        size = os.path.getsize(t.path("talker.out"))
        poke(t, pid)
        t.until("it reads what was handed in",
                lambda size=size: "root fed\n" in open(t.path("talker.out")).read()[size:], 5)
        end(pid)
    os.close(reader)
    os.close(writer)


def reach(path, fd):
    """Descriptor `fd` of whoever calls it is a connection to the listener."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    os.dup2(s.fileno(), fd)


def external_socket(t):
    path = t.path("feed.socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    pid, child = talker(t, lambda: reach(path, 5))
    ours, _ = listener.accept()
    t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), REFUSED, "UNSUPPORTED", "outside", f"{pid}",
                   "descriptor 5")
    image = t.dump(pid, "--kill", "--external", f"{pid}:5=feed")["image"]
    t.expect("its end is closed", b"", ours.recv(10))
    restored(t, image, "--external", "feed=7", before=lambda: reach(path, 7))
    again, _ = listener.accept()
    for who, name in ((pid, "root"), (child, "child")):
        again.sendall(b"fed by " + name.encode())
        poke(t, who)
        said(t, t.path("talker.out"), f"{name} fed by {name}\n")
    end(pid)


def body(t):
    moved(t)
    changed(t)
    handed(t)
    external(t)
    external_socket(t)


trial.main(body)
