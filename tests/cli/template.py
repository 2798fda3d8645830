#!/usr/bin/python3
"""fsnap template: an image held ready by a process of its own; copies of a tree of several processes share its memory
until they write; streams, directory, signals and exit status are those of who asks; what cannot be done is said."""

import json
import os
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
from copies import PROGRAM, ask, end  # noqa: E402
import trial  # noqa: E402

PORT = 7664
BIG = 24 + 3 * 8  # MiB, of programs/family.c


def template(t, *words, **how):
    result = t.fsnap.run("template", *words, "--json", **how)
    if not t.expect(f"template {words}: status", 0, result.status):
        raise trial.Stop(str(result))
    return result.json


def proportional(pids, kind="Pss"):
    """MiB that processes have, what is shared divided among those who share it."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            total += next(int(x.split()[1]) for x in f if x.startswith(f"{kind}:"))
    return total / 1024


def holds(t, image):
    facts = template(t, "start", image, "--name", "ready")
    t.expect("its name and image", ("ready", image), (facts["name"], facts["image"]))
    t.expect("it is listed", [facts], template(t, "list")["templates"])
    t.expect_error(t.fsnap.run("template", "start", image, "--name", "ready", "--json"), 6, "IMAGE_EXISTS", "ready")
    t.expect_error(t.fsnap.run("template", "start", image, "--name", "x" * 81, "--json"), 2, "USAGE", "x" * 81)
    one = template(t, "copy", "ready", "-d", "--listen", f"{PORT}=0")
    many = template(t, "copy", "ready", "--clones", 3, "--listen", f"{PORT}=0")["clones"]
    secrets = set()
    for copy in [one, *many]:
        pid, child, secret, works, cwd = ask(int(copy["listen"][0].split("=")[1]))
        secrets.add(secret)
        t.expect("who answers", copy["pid"], pid)
        t.expect_true("with threads and child at work", works and child in children.tree(pid))
        t.expect("the parent is who holds the template", facts["pid"],
                 int(open(f"/proc/{pid}/stat", encoding="ascii").read().rpartition(")")[2].split()[1]))
    t.expect("one program", 1, len(secrets))
    t.expect("copies are counted", (4, 4),
             tuple(template(t, "list")["templates"][0][x] for x in ("copies", "running")))
    t.expect_error(t.fsnap.run("template", "copy", "ready", "-d", "--json", "--new-pids"), 1, "ADDRESS_TAKEN", str(PORT))
    end(many)
    t.until("those that ended are buried", lambda: template(t, "list")["templates"][0]["running"] == 1)
    template(t, "stop", "ready")
    t.expect("nothing is listed", [], template(t, "list")["templates"])
    children.wait_gone([facts["pid"]], 5)
    t.expect("its copies go on", one["pid"], ask(int(one["listen"][0].split("=")[1]))[0])
    end([one])
    t.expect_error(t.fsnap.run("template", "copy", "ready", "-d", "--json"), 6, "IMAGE_MISSING", "ready")
    t.expect_error(t.fsnap.run("template", "stop", "--json"), 2, "USAGE")
    t.expect_error(t.fsnap.run("template", "bake", "--json"), 2, "USAGE", "bake")
    t.expect_error(t.fsnap.run("template", "start", "nobody", "--json"), 6, "IMAGE_MISSING", "nobody")


def in_the_foreground(t):
    """A shell that says what it has: it ends as told, and so does the command that stands in for it."""
    pid = t.start(["/bin/sh", "-c", "trap 'pwd; exit 7' USR1; touch up; while :; do sleep 0.05; done"], ready="up")
    image = t.dump(pid, "--kill")["image"]
    template(t, "start", image)
    os.mkdir(t.path("here"))
    handle = t.fsnap.start("template", "copy", image, "--quiet", "--cwd", t.path("here"))
    holder = template(t, "list")["templates"][0]
    t.until("it runs", lambda: template(t, "list")["templates"][0]["running"] == 1)
    time.sleep(0.1)
    os.kill(handle[0], signal.SIGUSR1)
    result = t.fsnap.finish(handle)
    t.expect("its exit status", 7, result.status)
    os.kill(holder["pid"], signal.SIGKILL)
    children.wait_gone([holder["pid"]], 5)
    t.expect("one that was killed is not listed", [], template(t, "list")["templates"])
    template(t, "start", image)
    t.expect("all are stopped", [image], template(t, "stop", "--all")["stopped"])


def family(t):
    pid = t.start([os.path.join(t.helpers, "family")], ready="up-0", name="family")
    alone = proportional(children.tree(pid))
    image = t.dump(pid, "--kill")["image"]
    facts = template(t, "start", image)
    t.expect_true(f"most of its memory is held: {facts['shared_bytes'] >> 20} MiB", facts["shared_bytes"] >= BIG << 20)
    n = 10
    copies = template(t, "copy", image, "--clones", n)["clones"]
    trees = [children.tree(x["pid"]) for x in copies]
    t.expect("processes", [3] * n, [len(x) for x in trees])
    # It has the image mapped, too, which is a file.
    held = proportional(sum(trees, [])) + proportional([facts["pid"]], "Pss_Anon")
    t.note(f"one tree has {alone:.1f} MiB, {n} copies and the template {held:.1f} MiB")
    if not children.CHECKED:  # whose shadow memory is each copy's own
        t.expect_true(f"memory of {n} copies: {held:.1f} MiB", held <= 1.2 * alone + n)
    # What the first writes as they end is not seen by the last.
    for tree in trees:
        for each in reversed(tree):
            os.kill(each, signal.SIGTERM)
        for each in tree:
            t.until("it has looked at its memory", lambda e=each: os.path.getsize(t.path(f"said-{e}")))
            t.expect("memory is what it was", "good", open(t.path(f"said-{each}"), encoding="ascii").read())
    template(t, "stop", image)


def body(t):
    if t.control:
        t.expect_true("control", True)
        return
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM, str(PORT)], ready="ready")
    image = t.dump(pid)["image"]
    holds(t, image)
    for each in children.tree(pid):
        os.kill(each, signal.SIGKILL)
    in_the_foreground(t)
    family(t)


trial.main(body)
