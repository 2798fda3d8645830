#!/usr/bin/python3
"""fsnap watch keeps what it knew of mapped files, and of what descriptors will want, from image to image. All of that
changes between two images here: a mapped file is renamed, another is replaced by one of the same name, a third is written
and a fourth mapped in its place; an edge-triggered watch comes to be that has told already. The image after is what the
program has then. At last only a name is another: no mapping has changed, and what was read of them is kept."""

import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

TARGET = """
import json, mmap, os, select, signal

def map_file(name):
    with open(name, "rb") as f:
        return mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

def say(name, value):
    with open(name + ".new", "w") as f:
        json.dump(value, f)
    os.rename(name + ".new", name)

maps = {name: map_file(name) for name in ("renamed", "replaced", "written", "dropped")}
for mapped in maps.values():
    mapped[0]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
r, w = os.pipe()
edge = None
say("ready", True)
while True:
    if signal.sigwait([signal.SIGUSR1, signal.SIGUSR2]) == signal.SIGUSR1:
        maps.pop("dropped").close()
        maps["late"] = map_file("late")
        edge = select.epoll()
        edge.register(r, select.EPOLLIN | select.EPOLLET)
        os.write(w, b"x")
        say("changed", len(edge.poll(0)))
    else:
        quiet = len(edge.poll(0))
        os.write(w, b"y")
        say("told", {"maps": {k: bytes(v[:8]).decode() for k, v in maps.items()}, "again": quiet,
                     "then": len(edge.poll(0)), "waits": len(os.read(r, 10))})
"""


def write(t, name, text):
    with open(t.path(name), "w", encoding="utf-8") as f:
        f.write(text.ljust(5000, "."))


def mapped(pid):
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        return {os.path.basename(x.split(None, 5)[5].strip()) for x in f if len(x.split(None, 5)) == 6}


def told(t, pid):
    if os.path.exists(t.path("told")):
        os.unlink(t.path("told"))
    os.kill(pid, signal.SIGUSR2)
    t.until("it has told", lambda: os.path.exists(t.path("told")))
    with open(t.path("told"), encoding="utf-8") as f:
        return json.load(f)


def change(t, pid):
    os.rename(t.path("renamed"), t.path("moved"))
    write(t, "other", "in place")
    os.rename(t.path("other"), t.path("replaced"))
    with open(t.path("written"), "r+", encoding="utf-8") as f:
        f.write("rewritten")
    os.kill(pid, signal.SIGUSR1)
    t.until("it has changed", lambda: os.path.exists(t.path("changed")))


def check(t, pid, what):
    said = told(t, pid)
    t.expect(f"{what}: content", {"renamed": "renamed.", "replaced": "replaced", "written": "rewritte", "late": "late...."},
             said["maps"])
    t.expect(f"{what}: an edge that was told is not told again", 0, said["again"])
    t.expect(f"{what}: the next one is", 1, said["then"])
    t.expect(f"{what}: bytes in the pipe", 2, said["waits"])


def body(t):
    t.fsnap.name_store = False
    for name in ("renamed", "replaced", "written", "dropped", "late"):
        write(t, name, name)
    pid = t.start(["/usr/bin/python3", "-S", "-E", "-c", TARGET], ready="ready")
    if t.control:
        change(t, pid)
        check(t, pid, "alone")
        return
    handle = t.fsnap.start("watch", "-t", pid, "--every", "20ms", "--max-share", "50", "--keep", 4, "--name", "k", "--json")
    t.until("images before", lambda: len(t.fsnap.lines(handle)) > 3, timeout=60)
    change(t, pid)
    for step in range(2):
        seen = len(t.fsnap.lines(handle))
        t.until("images behind", lambda: len(t.fsnap.lines(handle)) > seen + 2, timeout=60)
        if step == 0:
            os.mkdir(t.path("elsewhere"))
            os.rename(t.path("moved"), t.path("elsewhere/moved_again"))
    os.kill(handle[0], signal.SIGTERM)
    result = t.fsnap.finish(handle)
    t.expect("exit status", 0, result.status)
    summary = t.fsnap.lines(handle)[-1]
    t.expect("it could be saved at each moment", (0, ""), (summary["skipped"], summary.get("why", "")))
    os.kill(pid, signal.SIGKILL)
    children.wait_gone([pid], 10)
    t.restore(summary["last"])
    names = mapped(pid)
    t.expect_true(f"the renamed one by its last name: {sorted(names)}",
                  "moved_again" in names and not names & {"renamed", "moved"})
    t.expect_true(f"the late one, and not the one before: {sorted(names)}", "late" in names and "dropped" not in names)
    check(t, pid, "restored")
    os.kill(pid, signal.SIGKILL)
    children.wait_gone([pid], 10)
    t.expect("all images are whole", 0, t.fsnap.run("verify", "--all").status)


trial.main(body)
