#!/usr/bin/python3
"""fsnap run --warm: the first start is saved when it is ready, by whichever of three words, later ones start from there
and are what the command would be: output, input, exit status; an outdated image is made anew. The example of
tools/ctest sets up once for all its tests."""

import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

EXAMPLE = os.path.join(os.path.dirname(trial.TESTS), "tools", "ctest")

# Counts its starts, gets ready in one of three ways, then ends as it is told on its standard input.
PROGRAM = """
import os, socket, sys
way, log = sys.argv[1:]
with open(log, "a") as f:
    f.write("start\\n")
if way == "port":
    server = socket.create_server(("127.0.0.1", 7171))
if way == "fd":
    os.write(5, b"\\n"); os.close(5)
if way == "line":
    print("now it is ready", flush=True)
line = sys.stdin.readline()
print("told", line.strip(), flush=True)
sys.exit(int(line))
"""

READY = {"port": ("--ready-port", "7171"), "fd": ("--ready-fd", "5"), "line": ("--ready-line", "is ready$")}


def run(t, name, way, told, *more):
    """Output and exit status of one start, its words given when it can read."""
    read, write = os.pipe()
    pid = children.spawn([t.fsnap.binary, "run", "--warm", name, "--store", t.fsnap.store, *READY[way], *more, "--",
                          "/usr/bin/python3", "-c", PROGRAM, way, t.path(name)], out=t.path("out"), err=t.path("err"),
                         stdin=f"/proc/self/fd/{read}", cwd=t.work, env=trial.ENVIRONMENT)
    os.close(read)
    images = os.path.join(t.fsnap.store, "images", name + ".fsnap")
    t.until(f"{name} is saved", lambda: os.path.exists(images))
    os.write(write, b"%d\n" % told)
    os.close(write)
    status = children.wait(pid, 20)
    out, err = (open(t.path(x), encoding="utf-8").read() for x in ("out", "err"))
    os.unlink(t.path("out"))
    os.unlink(t.path("err"))
    return status, out, err


def starts(t, name):
    return open(t.path(name), encoding="ascii").read().count("start")


def ways(t):
    for way in READY:
        first = "now it is ready\n" if way == "line" else ""
        for turn, told in enumerate((0, 7, 3)):
            status, out, err = run(t, way, way, told)
            t.expect(f"{way}, start {turn}: exit status ({err})", told, status)
            t.expect(f"{way}, start {turn}: output", (first if turn == 0 else "") + f"told {told}\n", out)
        t.expect(f"{way}: started once", 1, starts(t, way))


def wrong(t):
    for words in (("run",), ("run", "--", "true"), ("run", "--warm", "x", "--", "true"),
                  ("run", "--warm", "x", "--ready-port", "http", "--", "true"),
                  ("run", "--warm", "x", "--ready-fd", "3", "--", "/nowhere/program")):
        t.expect_error(t.fsnap.run("--json", *words), 2, "USAGE", hint=False)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = t.fsnap.run("--json", "run", "--warm", "x", "--ready-port", port, "--", "true")
        t.expect_error(taken, 2, "USAGE", str(port), "already")
    ended = t.fsnap.run("run", "--warm", "x", "--ready-fd", "3", "--", "/bin/sh", "-c", "exec 3>/dev/null; exit 9")
    t.expect_true(f"one that ends before it is ready: {ended}", ended.status in (9, 125))
    silent = t.fsnap.run("run", "--warm", "silent", *READY["line"], "--", "/bin/sh", "-c", "exec >&-; sleep 0.3; exit 9")
    t.expect("one that closes its output without the line", 9, silent.status)
    t.expect_true("it is not saved", not os.path.exists(os.path.join(t.fsnap.store, "images", "silent.fsnap")))


def never_ready(t):
    """A cold start that takes too long is ended, with all its descendants."""
    words = ("--ready-line", "never", "--ready-within", 1)
    late = t.fsnap.run("run", "--warm", "late", "--json", *words, "--", "/bin/sh", "-c",
                       f"(echo $$ >{t.path('pids')}; sh -c 'echo $$ >>{t.path('pids')}; sleep 300' & wait) & wait")
    t.expect_error(late, 125, "TARGET_BUSY", "1 s", "ended")
    pids = [int(x) for x in open(t.path("pids"), encoding="ascii").read().split()]
    t.expect("processes of it", 2, len(pids))
    t.expect("who is left", [], children.wait_gone(pids, 5))


def example(t):
    build = t.path("ctest")
    configured = subprocess.run(["cmake", "-S", EXAMPLE, "-B", build, f"-DFSNAP={t.fsnap.binary}"], capture_output=True,
                                text=True, check=False)
    t.expect(f"the example is configured: {configured.stderr}", 0, configured.returncode)
    pid = children.spawn(["/usr/bin/ctest", "--test-dir", build, "--output-on-failure"], out=t.path("ctest.out"))
    status = children.wait(pid, 60)
    said = open(t.path("ctest.out"), encoding="utf-8").read()
    t.expect(f"its tests pass: {said}", 0, status)
    t.expect("one setup for all", 1, open(f"{build}/setups", encoding="ascii").read().count("set up"))


def body(t):
    ways(t)
    wrong(t)
    never_ready(t)
    example(t)


trial.main(body)
