#!/usr/bin/python3
"""tools/pytest-fsnap: its example passes, on two workers of xdist; a test that fails leaves a snapshot, and the
command that is printed brings that back, with what the test had done to its database."""

import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PLUGIN = os.path.join(os.path.dirname(trial.TESTS), "tools", "pytest-fsnap")
ROWS = 20000
SNAPSHOTS = "/dev/shm/snapshots"  # a file system of this sandbox's own


def pytest(t, *words, **environment):
    # Not by subprocess: process 1 of the sandbox has to wait for orphans meanwhile, whose numbers are wanted again.
    pid = children.spawn(["/usr/bin/python3", "-m", "pytest", "-q", "-p", "pytest_fsnap.plugin", "-p", "no:cacheprovider",
                          "--fsnap-directory", SNAPSHOTS, *words, t.path("example")], out=t.path("said"), cwd=t.work,
                         env={**trial.ENVIRONMENT, "PYTHONPATH": PLUGIN, "ROWS": str(ROWS),
                              "FSNAP_LIBRARY": os.path.join(t.build, "libfsnap.so"), **environment})
    status = children.wait(pid, 120)
    with open(t.path("said"), encoding="utf-8") as f:
        said = f.read()
    os.unlink(t.path("said"))
    return status, said


def passes(t, *words):
    status, said = pytest(t, *words)
    if not t.expect(f"pytest {words}", 0, status):
        print(said[-3000:])
    t.expect_true("all of them ran", "7 passed" in said)
    t.expect("nothing is left of it", [], os.listdir(SNAPSHOTS))


def keeps(t):
    status, said = pytest(t, "--fsnap-keep-failed", "-k", "fails or drop", FAIL="1")
    t.expect("a test fails", 1, status)
    printed = re.search(r"^ *fsnap (restore .*)$", said, flags=re.M)
    if not t.expect_true(f"a command is printed: {said[-3000:]}", printed):
        return
    words = printed.group(1).split()
    t.fsnap.name_store = False
    result = t.fsnap.run(*words, "-d", "--json")
    t.expect(f"it brings the process back: {result}", 0, result.status)
    directory = next(x for x in os.listdir(SNAPSHOTS) if x.startswith("fsnap-"))
    place = next(os.path.join(SNAPSHOTS, directory, x)
                 for x in os.listdir(os.path.join(SNAPSHOTS, directory)) if x.endswith(".master.0"))
    t.until("what the test had done", lambda: str(ROWS + 1) == subprocess.run(
        ["psql", "-XqAt", "-h", f"{place}/socket", "-U", "postgres", "-c", "SELECT count(*) FROM t", "postgres"],
        capture_output=True, text=True, check=False, env=trial.ENVIRONMENT).stdout.strip())
    os.kill(result.json["pid"], 9)


def body(t):
    for module in ("pytest", "xdist"):
        if subprocess.run(["/usr/bin/python3", "-c", f"import {module}"], capture_output=True, check=False).returncode:
            sandbox.skip(f"python3-{module} is not installed")
    os.mkdir(SNAPSHOTS, 0o755)
    shutil.copytree(os.path.join(PLUGIN, "example"), t.path("example"))
    passes(t, "-n", "2")
    keeps(t)


trial.main(body)
