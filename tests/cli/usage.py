#!/usr/bin/python3
"""The command line: what is wrong with it is said in words and in the exit status, help teaches,
options may stand anywhere, and nothing for terminals goes into a pipe."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import trial  # noqa: E402

COMMANDS = ("dump", "restore", "list", "inspect", "heat", "prefetch", "report", "core", "run", "verify", "rm", "doctor", "help")

WRONG = (
    (),
    ("frobnicate",),
    ("dump",),
    ("dump", "-t"),
    ("dump", "-t", "abc"),
    ("dump", "-t", "0"),
    ("dump", "-t", "-5"),
    ("dump", "-t", "99999999999999999999"),
    ("dump", "-t", "1", "surplus"),
    ("dump", "-t", "1", "--detach"),
    ("restore", "a", "b"),
    ("restore", "--kill"),
    ("restore", "-t", "1"),
    ("list", "--frobnicate"),
    ("list", "--json=yes"),
    ("list", "-x"),
    ("inspect", "name", "-t", "1"),
    ("heat", "name", "-t", "1"),
    ("heat", "--watch"),
    ("dump", "-t", "1", "--heat", "lukewarm"),
    ("prefetch", "name", "--prefetch-rate", "fast"),
    ("prefetch", "name", "--prefetch", "tepid"),
    ("restore", "name", "--stats", "soon"),
    ("restore", "name", "--prefetch-max", "-1"),
    ("verify", "name", "--all"),
    ("rm",),
    ("rm", "name", "--all"),
    ("help", "frobnicate"),
)


class Said:
    """What `fsnap WORDS` said, with nothing but pipes around it."""

    def __init__(self, t, *words, **environment):
        self.argv = ("fsnap", *words)
        result = subprocess.run([t.fsnap.binary, *words], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=20, check=False,
                                env={"PATH": "/usr/bin:/bin", "HOME": t.work,
                                     "FSNAP_STORE": t.path("store"), **environment})
        self.status, self.out, self.err = result.returncode, result.stdout, result.stderr


def expect_plain(t, said):
    t.expect(f"{said.argv}: no escape sequences", False, "\033" in said.out + said.err)


def wrong_usage(t):
    for words in WRONG:
        said = Said(t, *words)
        lines = said.err.splitlines()
        t.expect(f"{said.argv}: exit status", 2, said.status)
        t.expect(f"{said.argv}: stdout", "", said.out)
        t.expect_true(f"{said.argv}: an error and a hint, not {lines}", len(lines) == 2 and
                      lines[0].startswith("fsnap: ") and lines[1].startswith("  hint: "))
        expect_plain(t, said)
        said = Said(t, "--json", *words)
        error = json.loads(said.out)["error"]
        t.expect(f"{said.argv}: exit status", 2, said.status)
        t.expect(f"{said.argv}: stderr", "", said.err)
        t.expect(f"{said.argv}: code", "USAGE", error["code"])
        t.expect(f"{said.argv}: members", {"code", "message", "hint", "errno"}, set(error))


def names_what_is_wrong(t):
    for words, name in ((("frobnicate",), "frobnicate"), (("list", "--frobnicate"), "--frobnicate"),
                        (("list", "-x"), "-x"), (("restore", "--kill"), "--kill"),
                        (("dump", "-t", "abc"), "abc"), (("dump", "-t"), "-t")):
        said = Said(t, *words)
        t.expect_true(f"{said.argv}: {said.err!r} names {name}", name in said.err.splitlines()[0])


def teaches(t):
    overview = Said(t, "--help")
    t.expect("--help: exit status", 0, overview.status)
    t.expect("`fsnap help` is `fsnap --help`", overview.out, Said(t, "help").out)
    for command in COMMANDS:
        t.expect_true(f"--help names {command}", f"\n  {command}" in overview.out)
        said = Said(t, command, "--help")
        t.expect(f"{command} --help: exit status", 0, said.status)
        t.expect_true(f"{command} --help has examples", "Examples:\n  fsnap " in said.out)
        t.expect(f"help {command} says the same", said.out, Said(t, "help", command).out)
        t.expect(f"--help {command} says the same", said.out, Said(t, "--help", command).out)
        t.expect(f"{command} --help: lines of at most 100 characters", [],
                 [line for line in said.out.splitlines() if len(line) > 100])
        expect_plain(t, said)
    t.expect_true("help exit explains 125", "125" in Said(t, "help", "exit").out)


def version(t):
    said = Said(t, "--version")
    t.expect("--version: exit status", 0, said.status)
    t.expect_true(f"--version says {said.out!r}", said.out.startswith("fsnap "))
    number = json.loads(Said(t, "--version", "--json").out)["version"]
    t.expect("--version --json", f"fsnap {number}\n", said.out)


def option_order(t):
    answers = set()
    for words in (("--json", "list"), ("list", "--json"), ("-j", "list"), ("list", "-qj")):
        said = Said(t, *words)
        answers.add(said.out)
        t.expect(f"{said.argv}: exit status", 0, said.status)
    t.expect("one answer wherever the options stand", 1, len(answers))
    said = Said(t, "-s", t.path("none"), "verify", "--json", "name")
    t.expect("options around the words", "STORE_MISSING", json.loads(said.out)["error"]["code"])
    # Behind "--" nothing is an option.
    said = Said(t, "rm", "--", "-x", "--json")
    t.expect("words behind --", (6, ""), (said.status, said.out))


def quiet_in_a_pipe(t):
    for words in (("list",), ("dump", "-t", "999999999"), ("inspect", "-t", str(os.getpid()))):
        expect_plain(t, Said(t, *words, TERM="xterm-256color"))


def full_disk(t):
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([t.fsnap.binary, "--help"], stdout=full, stderr=subprocess.PIPE,
                                text=True, timeout=20, check=False)
    t.expect("stdout on a full disk: exit status", 1, result.returncode)
    t.expect_true("stdout on a full disk: said so", "No space left" in result.stderr)


def body(t):
    wrong_usage(t)
    names_what_is_wrong(t)
    teaches(t)
    version(t)
    option_order(t)
    quiet_in_a_pipe(t)
    full_disk(t)


trial.main(body)
