#!/usr/bin/python3
"""fsnap watch: images one after the other, of which the newest stay and any can be restored; it ends with the tree or
when it is told to; what it has made stays whole, and files of images without a name do not pile up."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

KEEP = 6


def watch(t, pid, name):
    handle = t.fsnap.start("watch", "-t", pid, "--every", "50ms", "--keep", KEEP, "--name", name, "--json")
    t.until(f"{name}: images", lambda: len(t.fsnap.lines(handle)) > 2 * KEEP, timeout=60)
    return handle


def check(t, pid):
    for name in [x for x in os.listdir(t.work) if x.startswith("check.")]:
        os.unlink(t.path(name))
    os.kill(pid, signal.SIGUSR2)
    new = t.until("it has checked", lambda: [x for x in os.listdir(t.work) if x.startswith("check.")])
    if new:
        with open(t.path(new[0])) as f:
            t.expect("memory", "ok", f.read())


MANY = ("import os, threading, time\nfor _ in range(8): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
        "memory = bytearray(48 << 20)\nopen('many', 'w').close()\ntime.sleep(99)")


def ends_while_it_is_saved(t):
    """That it has ended is told as that, and not as an image that failed."""
    for number in range(4):
        if os.path.exists(t.path("many")):
            os.unlink(t.path("many"))
        pid = t.start([sys.executable, "-c", MANY], ready="many")
        handle = t.fsnap.start("watch", "-t", pid, "--every", "1ms", "--max-share", "100%", "--name", f"many{number}")
        first = os.path.join(t.fsnap.store, "images", f"many{number}-000001.fsnap")
        t.until("its first image", lambda: os.path.exists(first), 30)
        time.sleep(number / 100)
        os.kill(pid, signal.SIGKILL)
        children.wait_gone([pid], 10)
        result = t.fsnap.finish(handle)
        t.expect("exit status", 0, result.status)
        t.expect_true(f"told as the end: {result.out}", "the tree has ended" in result.out)
        t.expect(f"no failure: {result.err}", [], [x for x in ("has ended", "No such process") if x in result.err])


def body(t):
    t.fsnap.name_store = False
    pid = t.start([os.path.join(t.helpers, "changing")])
    t.until("it is ready", lambda: os.path.exists(t.path(f"step.{pid}.0")))
    if t.control:
        check(t, pid)
        return
    handle = watch(t, pid, "w")
    os.kill(pid, signal.SIGUSR1)
    t.expect_error(t.fsnap.run("track", "-t", pid, "--json"), 2, "USAGE", "fsnap watch")
    t.expect_error(t.fsnap.run("watch", "-t", pid), 2, "USAGE", "fsnap watch")
    time.sleep(0.3)
    os.kill(handle[0], signal.SIGINT)
    result = t.fsnap.finish(handle)
    t.expect("told to end", 0, result.status)
    said = t.fsnap.lines(handle)
    images, summary = said[:-1], said[-1]
    t.expect("images told of", summary["images"], len(images))
    t.expect("the tree has ended", False, summary["ended"])
    parents = [x["parent"] for x in images[1:]]
    if not any(parents):
        print("skipped: this kernel cannot tell which memory has been written")
        sys.exit(77)
    t.expect("each builds on the one before", [x["image"] for x in images[:-1]], parents)
    t.expect_true("which makes them small", min(x["bytes"] for x in images[1:]) < images[0]["bytes"] / 20)
    names = sorted(x[:-6] for x in os.listdir(os.path.join(t.fsnap.store, "images")))
    t.expect("what stays", [x["image"] for x in images[-KEEP:]], names)

    # ends with the tree, and goes on counting where the last one ended
    handle = watch(t, pid, "w")
    os.kill(pid, signal.SIGKILL)
    children.wait_gone([pid], 10)
    result = t.fsnap.finish(handle)
    t.expect("the tree was killed", 0, result.status)
    t.expect("it has ended", True, t.fsnap.lines(handle)[-1]["ended"])
    t.expect("its first", f"w-{summary['images'] + 1:06}", t.fsnap.lines(handle)[0]["image"])
    t.expect("all are whole", 0, t.fsnap.run("verify", "--all").status)
    last = t.fsnap.lines(handle)[-1]["last"]
    for image in (last, names[0]):
        t.restore(image)
        check(t, pid)
        os.kill(pid, signal.SIGKILL)
        children.wait_gone([pid], 10)
    ends_while_it_is_saved(t)
    t.expect("removing all", 0, t.fsnap.run("rm", "--all").status)
    t.expect("nothing is left of them", [], os.listdir(os.path.join(t.fsnap.store, "ancestors")))


trial.main(body)
