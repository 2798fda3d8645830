#!/usr/bin/python3
"""What `fsnap help kinds` says: the same as engine/README.md, and each kind is shown by tests there
are."""

import glob
import os
import re
import subprocess
import sys

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(TESTS, "lib"))
import trial  # noqa: E402

README = os.path.join(TESTS, "..", "engine", "README.md")


def body(t):
    said = subprocess.run([t.fsnap.binary, "help", "kinds"], capture_output=True, text=True,
                          timeout=20, check=True).stdout
    with open(README, encoding="utf-8") as f:
        shown = re.search(r"^    \$ fsnap help kinds\n((?:(?:    .*)?\n)+)", f.read(), re.M)
    t.expect_true("engine/README.md shows the output of `fsnap help kinds`", shown)
    if shown:
        lines = [line.removeprefix("    ") for line in shown.group(1).rstrip().splitlines()]
        t.expect("what engine/README.md shows", said.rstrip().splitlines(), lines)
    t.expect("lines of at most 100 characters, with nothing at their ends", [],
             [line for line in said.splitlines() if len(line) > 100 or line != line.rstrip()])

    patterns = re.findall(r"^  shown by +(.+)$", said, re.M)
    t.expect("each kind is shown by something", len(re.findall(r"^\w+$", said, re.M)), len(patterns))
    for pattern in " ".join(patterns).split():
        found = [path for folder in ("specimens", "apps", "refuse", "cli")
                 for path in glob.glob(os.path.join(TESTS, folder, f"{pattern}.*"))]
        t.expect_true(f"a test called {pattern}", found)


trial.main(body)
