#!/usr/bin/python3
"""error-paths.py - which of the ends of calls that failed have run, of a report of lcov's.

    tools/error-paths.py [--list] REPORT.info

Counted is each statement with fail(), no_memory() or one of their wrappers, and whether it has run. By what fail() is
told of errno: "of a fault" with one (a system call failed, memory was lacking), "of what is there" without (the target, the image or
the caller is such that there is no way on). --list: those of faults that have not run. A statement that stands on one
line with its condition counts as run with that.
"""

import os
import re
import sys

CALL = re.compile(r"\b(?:fail|store_fail|\w+_failed|no_memory)\(")
PARTS = ("engine/", "store/", "restorer/", "bpf/")


def lines_run(path):
    """{source: {line: how often}}"""
    runs, source = {}, None
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("SF:"):
                source = runs.setdefault(line[3:].strip(), {})
            elif line.startswith("DA:"):
                number, count = line[3:].split(",")[:2]
                source[int(number)] = source.get(int(number), 0) + int(count)
    return runs


STRING = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)+'""")


def arguments(text, at):
    """What stands between the parentheses of which the first is there, by comma, and where they end."""
    depth, found = 0, [""]
    while True:
        string = STRING.match(text, at)
        if string:
            found[-1] += string.group()
            at = string.end()
            continue
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth == 0:
            return [x.strip() for x in found], at
        if text[at] == "," and depth == 1:
            found.append("")
        elif depth > 1 or text[at] != "(":
            found[-1] += text[at]
        at += 1


def statements(source, counts):
    """(line, of a fault, has run, its text)"""
    with open(source, encoding="utf-8") as f:
        text = f.read()
    for call in CALL.finditer(text):
        words, end = arguments(text, call.end() - 1)
        first, last = (text.count("\n", 0, x) + 1 for x in (call.start(), end))
        counted = [counts[x] for x in range(first, last + 1) if x in counts]
        line = text.split("\n")[first - 1]
        if not counted or not line[0].isspace():
            continue  # a declaration, a definition or a comment
        yield first, call.group() != "fail(" or words[2] != "0", max(counted) > 0, line.strip()


def main(words):
    listing = "--list" in words
    path = [x for x in words if not x.startswith("-")][0]
    total = {True: [0, 0], False: [0, 0]}
    for source, counts in sorted(lines_run(path).items()):
        shown = re.sub(r".*?/(?=(?:" + "|".join(PARTS) + "))", "", source)
        if not os.path.exists(source):
            continue
        for first, fault, run, text in statements(source, counts):
            total[fault][0] += 1
            total[fault][1] += run
            if listing and fault and not run:
                print(f"{shown}:{first}: {text}")
    for fault, name in ((True, "of a fault"), (False, "of what is there")):
        n, run = total[fault]
        print(f"ends {name}: {run} of {n} run ({100 * run / max(n, 1):.1f} %)")


main(sys.argv[1:])
