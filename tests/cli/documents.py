#!/usr/bin/python3
"""The manual and what shells complete: a page for each command, well-formed, that names every option of
its help; a page of the library that names every function; completion of commands, options and values."""

import glob
import os
import re
import shutil
import subprocess
import sys

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(TESTS, "lib"))
import trial  # noqa: E402

# Asks the function that bash asks, with the words of each line of standard input; what stands behind
# the last blank is being completed. COMP_WORDS are split at "=", too, as bash does it.
ASK = r"""
. "$1"
while IFS= read -r line; do
	spaced=${line//=/ = }
	read -ra COMP_WORDS <<<"$spaced"
	[[ $spaced == *' ' ]] && COMP_WORDS+=("")
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_fsnap
	echo "${COMPREPLY[*]}"
done
"""


def said(*argv, **how):
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True, **how).stdout


def plain(path):
    with open(path, encoding="utf-8") as f:
        return re.sub(r"\\f[A-Z]|\\%", "", f.read()).replace(r"\-", "-")


def manual(t, commands):
    folder = os.path.join(t.build, "man")
    pages = [f"fsnap-{command}.1" for command in commands] + ["fsnap.1", "libfsnap.3", "fsnap-image.5"]
    t.expect("pages", sorted(pages), sorted(os.listdir(folder)))
    if shutil.which("groff"):
        done = subprocess.run(["groff", "-man", "-ww", "-z", "-Tutf8", *sorted(glob.glob(f"{folder}/*"))],
                              capture_output=True, text=True, timeout=20)
        t.expect("what groff says of them", (0, ""), (done.returncode, done.stderr))
    else:
        t.note("no groff here: the form of the pages is not checked")
    for command in commands:
        helped = said(t.fsnap.binary, command, "--help")
        page = plain(f"{folder}/fsnap-{command}.1")
        options = re.findall(r"^  (?:-\w, |    )(--[\w-]+)", helped, re.M)
        t.expect_true(f"options of fsnap {command}", "--help" in options)
        t.expect(f"options that fsnap-{command}(1) leaves out", [],
                 [option for option in options
                  if not re.search(rf"^\.TP\n(?:-\w, )?{option}(?: |$)", page, re.M)])
    with open(os.path.join(TESTS, "..", "engine", "fsnap.h"), encoding="utf-8") as f:
        functions = set(re.findall(r"^\w[\w \*]*\b(fsnap_\w+)\(", f.read(), re.M))
    page = plain(f"{folder}/libfsnap.3")
    t.expect_true("functions of the library", {"fsnap_dump", "fsnap_restore"} <= functions)
    t.expect("functions that libfsnap(3) leaves out", [],
             sorted(name for name in functions if f"{name}(" not in page))
    t.expect("statuses in fsnap(1)", re.findall(r"^ +(\d+)  ", said(t.fsnap.binary, "help", "exit"), re.M),
             re.findall(r"^\.TP\n(\d+)$", plain(f"{folder}/fsnap.1"), re.M))


def completion(t, commands):
    folder = os.path.join(t.build, "completion")
    store = t.path("store")
    os.makedirs(f"{store}/images", mode=0o700)
    cases = {
        "fsnap ": set(commands),
        "fsnap resto": {"restore"},
        "fsnap help e": {"exit"},
        "fsnap dump --max": {"--max-freeze"},
        "fsnap verify --max": set(),
        "fsnap dump --tcp ": {"keep", "reset"},
        "fsnap dump --heat=a": {"auto", "always"},
        "fsnap -s /nowhere compa": {"compact"},
        f"fsnap dump --tree {os.getpid()}": {str(os.getpid())},
    }
    asked = said("bash", "--norc", "-c", ASK, "ask", f"{folder}/fsnap", input="".join(f"{line}\n" for line in cases),
                 env=dict(trial.ENVIRONMENT, FSNAP_STORE=store)).splitlines()
    for (line, expected), answer in zip(cases.items(), asked, strict=True):
        seen = set(answer.split())
        # Another process may have a number that begins likewise.
        t.expect(f"bash: {line}", expected, seen & expected if "--tree" in line else seen)
    for shell, name in (("zsh", "_fsnap"), ("fish", "fsnap.fish")):
        with open(f"{folder}/{name}", encoding="utf-8") as f:
            text = f.read()
        t.expect(f"commands that {shell} does not know", [],
                 [command for command in commands if command not in re.findall(r"[\w-]+", text)])
        if shutil.which(shell):
            t.expect(f"what {shell} says of it", "", said(shell, "-n", f"{folder}/{name}"))


def body(t):
    overview = said(t.fsnap.binary, "help")
    commands = re.findall(r"^  (\w+) +\S", overview.split("Commands:\n")[1].split("\n\n")[0], re.M)
    t.expect_true("commands", "restore" in commands)
    manual(t, commands)
    completion(t, commands)


trial.main(body)
