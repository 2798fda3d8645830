#!/usr/bin/python3
"""fsnap template, when who holds one does not do as it should: killed, it is noticed and its name given up; stopped, it is
named, with what to do, and nobody waits; it is never taken for the program. Descriptors of the caller become a copy's."""

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

MARK = "a-program-that-is-looked-for"
PROGRAM = """
import os, signal, sys
out = os.open(sys.argv[2] + ".out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
log = os.open(sys.argv[2] + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(out, 5); os.dup2(log, 6); os.close(out); os.close(log)
def say(*_):
    os.write(5, b"to five"); os.write(6, b"to the log")
signal.signal(signal.SIGUSR1, say)
open(sys.argv[2], "w").close()
while True:
    signal.pause()
"""


def ask(t, *words, **how):
    return t.fsnap.run("template", *words, "--json", **how)


def good(t, *words, **how):
    result = ask(t, *words, **how)
    if not t.expect(f"template {words}: status ({result.err})", 0, result.status):
        raise trial.Stop(str(result))
    return result.json


def message_of(result):
    return result.json["error"]["message"]


def known_as(mark):
    """Who would be found by `pgrep -f`."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read()
        except OSError:
            continue
        if mark.encode() in words and int(pid) != os.getpid():
            found.add(int(pid))
    return found


def is_itself(t, image):
    facts = good(t, "start", image)
    t.expect("nobody is taken for the program", set(), known_as(MARK))
    pid = good(t, "copy", image, "-d")["pid"]
    t.expect("but for a copy", {pid}, known_as(MARK))
    with open(f"/proc/{pid}/comm", encoding="ascii") as f:
        t.expect("its name", "python3\n", f.read())
    children_of = [x for x in children.tree(facts["pid"]) if x not in (facts["pid"], pid)]
    for each in children_of:
        with open(f"/proc/{each}/comm", encoding="ascii") as f:
            t.expect("the name of who bears copies", "fsnap-template\n", f.read())
    os.kill(pid, signal.SIGKILL)
    return facts["pid"]


def wrong_words(t, image):
    for words, status, code, about in (
            (("list", "extra"), 2, "USAGE", "extra"),
            (("copy", image, "--cwd", "/nonexistent"), 2, "USAGE", "/nonexistent"),
            (("copy", image, "-d", "--env", "WHO"), 2, "USAGE", "--env WHO"),
            (("copy", image, "-d", "--fd", "5=99"), 2, "USAGE", "99"),
            (("copy", image, "-d", "--fd", "5"), 2, "USAGE", "--fd 5"),
            (("copy", "nobody"), 125, "IMAGE_MISSING", "nobody"),
            (("copy", "nobody", "-d"), 6, "IMAGE_MISSING", "nobody"),
            (("copy", image, "--deny", "/usr"), 125, "FORBIDDEN", "/usr"),
            (("copy", image, "-d", "--deny", "/usr"), 6, "FORBIDDEN", "/usr")):
        result = ask(t, *words)
        t.expect_error(result, status, code, about)
        t.expect_true(f"the only copy has no number: {message_of(result)}", "copy 1" not in message_of(result))
    t.expect_true("of several it has", "copy 1" in message_of(ask(t, "copy", image, "--clones", 2, "--env", "WHO")))


def stopped(t, image, holder):
    made = good(t, "list")["templates"][0]["copies"]
    os.kill(holder, signal.SIGSTOP)
    told = good(t, "list")
    t.expect("it is not listed", [], told["templates"])
    t.expect_true(f"but told of: {told['notes']}", len(told["notes"]) == 1 and f"process {holder}" in told["notes"][0]
                  and f"kill -CONT {holder}" in told["notes"][0])
    for words, status in ((("copy", image), 125), (("copy", image, "-d"), 4), (("stop", image), 4), (("stop", "--all"), 4)):
        t.expect_error(ask(t, *words), status, "TARGET_BUSY", str(holder), "stopped")
    t.expect_error(ask(t, "start", image), 6, "IMAGE_EXISTS", image)
    os.kill(holder, signal.SIGCONT)
    t.expect("who gave up got no copy", (made, 0),
             tuple(good(t, "list")["templates"][0][x] for x in ("copies", "running")))


def calls_are_full(t, image, holder):
    """More callers than it has room for, while it is stopped: connecting does not take for ever."""
    os.kill(holder, signal.SIGSTOP)
    lines = []
    try:
        for _ in range(200):
            line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            line.setblocking(False)
            line.connect(os.path.join(t.fsnap.store, "templates", image))
            lines.append(line)
    except BlockingIOError:
        line.close()
    t.expect_error(ask(t, "stop", image), 4, "TARGET_BUSY", image)
    for line in lines:
        line.close()
    os.kill(holder, signal.SIGCONT)
    t.expect("it works again", holder, good(t, "list")["templates"][0]["pid"])


def killed(t, image, holder):
    name = os.path.join(t.fsnap.store, "templates", image)

    def kill(pid):
        os.kill(pid, signal.SIGKILL)
        children.wait_gone([pid], 5)
        t.expect_true("its name is left", os.path.exists(name))

    kill(holder)
    t.expect_error(ask(t, "copy", image), 125, "IMAGE_MISSING", image, "killed")
    again = good(t, "start", image)["pid"]
    t.expect("its name is taken over", again, good(t, "list")["templates"][0]["pid"])
    kill(again)
    told = good(t, "list")
    t.expect_true(f"list tells: {told}", not told["templates"] and "killed" in told["notes"][0])
    t.expect_true("and cleans up", not os.path.exists(name) and good(t, "list")["notes"] == [])
    kill(good(t, "start", image)["pid"])
    stop = t.fsnap.run("template", "stop", image)
    t.expect("stop: status", 0, stop.status)
    t.expect_true(f"it is said: {stop.err}", "killed" in stop.err)
    t.expect_true("its name is gone", not os.path.exists(name))
    t.expect_error(ask(t, "stop", image), 6, "IMAGE_MISSING", image)


def begin(t, name, *more):
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM, MARK, t.path(name)], ready=name, name=name)
    return t.dump(pid, "--kill", *more)["image"]


def descriptors(t):
    def open_them():
        for number, name in ((7, "mine"), (8, "my-log")):
            fd = os.open(t.path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(fd, number)
            os.close(fd)

    image = begin(t, "second", "--external", "6=log")
    good(t, "start", image)
    t.expect_error(ask(t, "copy", image, "-d"), 1, "FILE_MISSING", "log")
    t.expect_error(ask(t, "copy", image, "-d", "--external", "nothing=0"), 2, "USAGE", "nothing")
    pid = good(t, "copy", image, "-d", "--fd", "5=7", "--external", "log=8", before=open_them)["pid"]
    os.kill(pid, signal.SIGUSR1)
    for name, said in (("mine", "to five"), ("my-log", "to the log")):
        t.until(f"it has written to {name}", lambda n=name: os.path.getsize(t.path(n)))
        t.expect(name, said, open(t.path(name), encoding="ascii").read())
    for name in ("second.out", "second.log"):
        t.expect(f"nothing went to {name}", 0, os.path.getsize(t.path(name)))
    os.kill(pid, signal.SIGKILL)
    t.expect("it is stopped", [image], good(t, "stop", image)["stopped"])


def body(t):
    if t.control:
        t.expect_true("control", True)
        return
    image = begin(t, "first")
    holder = is_itself(t, image)
    wrong_words(t, image)
    stopped(t, image, holder)
    calls_are_full(t, image, holder)
    killed(t, image, holder)
    descriptors(t)


trial.main(body)
