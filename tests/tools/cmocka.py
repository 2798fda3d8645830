#!/usr/bin/python3
"""tools/cmocka: tests of its example start from one fixture, threads included, whatever others destroy; one that fails
is told of, and fails the run."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402


def run(t, *words):
    pid = children.spawn([os.path.join(t.helpers, "example_cmocka"), *words], out=t.path("said"), cwd=t.work,
                         env={**trial.ENVIRONMENT, "FSNAP_COMMAND": t.fsnap.binary})
    status = children.wait(pid, 60)
    with open(t.path("said"), encoding="utf-8") as f:
        said = f.read()
    os.unlink(t.path("said"))
    return status, said


def body(t):
    before = set(os.listdir("/tmp"))
    status, said = run(t)
    t.expect(f"all pass: {said}", 0, status)
    t.expect_true("four of them", "4 test(s) run" in said)
    status, said = run(t, "fails")
    t.expect("one that fails fails the run", 1, status)
    t.expect_true(f"and says what was wrong: {said}", "100000 != 0" in said or "0x186a0 != 0" in said)
    t.expect("no store is left", [], [x for x in set(os.listdir("/tmp")) - before if x.startswith("fsnap-cmocka")])


trial.main(body)
