#!/usr/bin/python3
"""Command lines that are wrong: exit status 2, and what would be right; help goes to stdout with 0.
What list and inspect print with --json is JSON, also of an empty store."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_USAGE  # noqa: E402

WRONG = (["nonsense"], ["dump"], ["dump", "-t"], ["dump", "-t", "1", "extra"],
         ["restore", "a", "b"], ["dump", "--no-such-option"], ["list", "--kill"], ["rm"],
         ["inspect", "a", "-t", "1"],
         ["rm", "--all", "x"], ["restore", "-d", "--explain", "--no-such"])


def body(t):
    t.fsnap.name_store = False
    for words in WRONG:
        result = t.fsnap.run(*words)
        label = " ".join(words)
        t.expect(f"{label}: exit status", EXIT_USAGE, result.status)
        t.expect_true(f"{label}: a message on stderr, nothing on stdout",
                      result.err.startswith("fsnap: ") and not result.out)
    for words in (["--help"], ["help"], ["dump", "--help"], ["help", "restore"], ["--version"]):
        result = t.fsnap.run(*words)
        t.expect(f"{' '.join(words)}: exit status", 0, result.status)
        t.expect_true(f"{' '.join(words)}: something on stdout, nothing on stderr",
                      result.out and not result.err)
    t.expect("images of an empty store", [], t.fsnap.run("list", "--json").json["images"])

    pid = holder.start(t, "nothing")
    image = t.dump(pid, "--name", "named")["image"]
    t.expect("the image's name", "named", image)
    for words in (["list"], ["inspect", image], ["inspect", image, "--threads"],
                  ["inspect", image, "--stacks"], ["inspect", "-t", pid],
                  ["inspect", "-t", pid, "--stacks"], ["verify", image], ["verify", "--all"]):
        label = " ".join(map(str, words))
        t.expect_true(f"{label}: prints something", t.fsnap.run(*words).out)
        result = t.fsnap.run(*words, "--json")
        t.expect(f"{label}: exit status", 0, result.status)
        t.expect_true(f"{label}: JSON", result.json is not None)
    t.expect_true("a backtrace names a function of the program",
                  "sigwaitinfo" in t.fsnap.run("inspect", image, "--stacks").out or
                  "sigtimedwait" in t.fsnap.run("inspect", image, "--stacks").out)
    explained = t.fsnap.run("restore", image, "--explain")
    t.expect("explain: exit status", 0, explained.status)
    t.expect_true("explain: names the program's file", "holder" in explained.out)
    holder.expect_well(t, pid, "being looked at")
    t.expect("rm: exit status", 0, t.fsnap.run("rm", image).status)
    t.expect("images afterwards", [], t.fsnap.run("list", "--json").json["images"])


trial.main(body)
