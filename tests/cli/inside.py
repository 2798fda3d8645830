#!/usr/bin/python3
"""Large processes are copied by helpers inside them (engine/copy_inside.c): what is stored is the same, and the program
cannot tell. Those that could, are copied from outside."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402
from copied import Copied  # noqa: E402

SIZE = 56


def processor_without_vectors():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return " avx2 " not in f.read()


def stores_and_restores(t, c, mib=SIZE):
    """Left running, then killed and restored; returns the first report."""
    pid = c.start(mib)
    before = t.settled(pid)
    report = t.dump(pid, "--no-live", "--name", "running")
    t.expect("after the dump", "ok", c.answer())
    t.expect_unharmed(pid, before, "the dump")
    t.expect("verify", 0, t.fsnap.run("verify", "running").status)
    t.dump(pid, "--no-live", "--name", "ended", "--kill")
    t.restore("ended")
    t.expect("restored", "ok", c.answer())
    c.end()
    t.restore("running")
    t.expect("restored from the first", "ok", c.answer())
    c.end()
    t.fsnap.run("rm", "--all")
    return report


def body(t):
    os.chmod(t.work, 0o777)
    c = Copied(t)
    try:
        trials(t, c)
    finally:
        c.close()


def left_to_others(t, c, word, **how):
    pid = c.start(SIZE, word, **how)
    report = t.dump(pid, "--no-live", "--name", "other")
    t.expect(f"{word}: pages copied from inside", 0, report["inside_pages"])
    t.expect(f"{word}: the program", "ok", c.answer())
    t.expect("verify", 0, t.fsnap.run("verify", "other").status)
    t.fsnap.run("rm", "--all")
    c.end()


def copied_all_the_same(t, c, word):
    pid = c.start(SIZE, word)
    before = t.settled(pid)
    report = t.dump(pid, "--no-live", "--name", "other")
    t.expect_true(f"{word}: pages copied from inside", report["inside_pages"] > 0)
    t.expect(f"{word}: the program", "ok", c.answer())
    t.expect_unharmed(pid, before, f"the dump ({word})")
    t.fsnap.run("rm", "--all")
    c.end()


def trials(t, c):
    report = stores_and_restores(t, c)
    if processor_without_vectors():
        t.note("this processor has no AVX2: nothing is copied from inside")
        return
    t.expect_true(f"copied from inside: {report['inside_pages']} pages", report["inside_pages"] > 0)
    t.expect_true("the others were copied, too", report["inside_pages"] < report["frozen_pages"])
    left_to_others(t, c, "filter")
    for word in ("timer", "limit"):  # of processor time: that of helpers is not its own
        copied_all_the_same(t, c, word)
    left_to_others(t, c, "threads", uid=1000)
    pid = c.start(SIZE, uid=1000)
    handle = t.fsnap.start("dump", "-t", pid, "--no-live", "--json", "--store", "/dev/shm/fsnap-copied.1000", uid=1000)
    result = t.fsnap.finish(handle)
    t.expect("dumped by a user: exit status", 0, result.status)
    if result.status == 0:
        t.expect_true("from inside", result.json["inside_pages"] > 0)
    t.expect("the user's program", "ok", c.answer())
    t.fsnap.finish(t.fsnap.start("rm", "--all", "--trim", "--store", "/dev/shm/fsnap-copied.1000", uid=1000))
    c.end()
    os.environ["FSNAP_NO_COPY_INSIDE"] = "1"
    t.expect("not from inside", 0, stores_and_restores(t, c)["inside_pages"])


trial.main(body)
