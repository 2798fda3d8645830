#!/usr/bin/python3
"""Streamed restores without a record: what the program wrote while it was dumped comes first. Where nobody knows what
that is, or the image is not the one it was noted for, nothing does."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

SIZE = 48  # MiB
SET = SIZE * 256 // 2 // 64  # pages


def start(t, **how):
    for name in ("ready", "ask", "answer"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    return t.start([os.path.join(t.helpers, "working"), t.work, str(SIZE)], ready="ready", name="working", **how)


def answers(t, what):
    if os.path.exists(t.path("answer")):
        os.unlink(t.path("answer"))
    with open(t.path("ask"), "w", encoding="utf-8"):
        pass
    t.until(f"{what}: it answers", lambda: os.path.exists(t.path("answer")), 20)
    with open(t.path("answer"), encoding="utf-8") as f:
        t.expect(what, "ok", f.read())


def end(t, pid):
    os.kill(pid, 9)
    children.wait_gone([pid], 5)
    children.statuses.pop(pid, None)


def streamed(t, image):
    result = t.fsnap.run("restore", image, "-d", "--memory", "stream", "--wait-resident", "--json", timeout=60)
    t.expect(f"restore of {image}: exit status", 0, result.status)
    return result.json


def body(t):
    os.chmod(t.work, 0o777)
    pid = start(t)
    still = t.dump(pid, "--no-live", "--name", "still")
    t.expect("of a dump that stood still, nobody knows", 0, still["young_pages"])
    live = t.dump(pid, "--live", "--name", "live", "--kill")
    young = live["young_pages"]
    t.expect_true(f"pages that were written meanwhile: {young} of {SET}, and a few", SET <= young <= SET + 400)
    report = streamed(t, "live")
    t.expect("they come first", (young * 4096, 0), (report["young_bytes"], report["record_bytes"]))
    answers(t, "restored with them first")
    end(t, pid)
    result = t.fsnap.run("restore", "live", "-d", "--record", "1", "--wait-resident", "--json", timeout=60)
    t.expect("recording, they are not wanted", 0, result.json["young_bytes"])
    end(t, pid)
    report = streamed(t, "live")
    t.expect("a record is better", (0, True), (report["young_bytes"], report["record_bytes"] > 0))
    answers(t, "restored with a record")
    end(t, pid)
    chained(t)
    by_user(t)


def chained(t):
    """In a chain, it is what was written since the image before."""
    pid = start(t)
    t.fsnap.name_store = False
    t.expect("track", 0, t.fsnap.run("track", "-t", pid).status)
    t.fsnap.name_store = True
    t.dump(pid, "--name", "base")
    answers(t, "tracked")
    report = t.dump(pid, "--name", "next", "--kill")
    young = report["young_pages"]
    t.expect_true(f"written since: {young}", SET <= young <= SET + 400)
    t.expect("they come first", young * 4096, streamed(t, "next")["young_bytes"])
    answers(t, "restored from a chain")
    end(t, pid)
    t.expect("compact", 0, t.fsnap.run("compact", "next").status)
    t.expect("elsewhere, their places are others", 0, streamed(t, "next")["young_bytes"])
    answers(t, "restored from what was compacted")
    end(t, pid)


def by_user(t):
    pid = start(t, uid=1000)
    store = t.path("store-1000")
    result = t.fsnap.finish(t.fsnap.start("dump", "-t", pid, "--live", "--store", store, "--json", uid=1000))
    t.expect("dumped by a user: exit status", 0, result.status)
    if result.status == 0 and result.json["rounds"]:
        t.expect_true("who knows it, too", result.json["young_pages"] >= SET)
    end(t, pid)


trial.main(body)
