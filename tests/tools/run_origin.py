#!/usr/bin/python3
"""fsnap run --warm: an image of another command, argument, directory, variable or script is not taken for this one, and
no image that somebody else has made is replaced; each start has the standard streams that it was given, whatever the
first one had: files, /dev/null, pipes, none."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

# What it was started with it remembers from its setup; what it writes is of this start. Its child has the same streams.
PROGRAM = """
import os, sys
log, first = os.open("own.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), [sys.argv[1:], os.getcwd(), os.environ.get("COLOR")]
with open(os.environ["STARTS"], "a") as f:
    f.write("x")
os.close(5)
said = sys.stdin.readline().strip()
print("said", said, *first, flush=True)
os.write(2, f"err {said}\\n".encode())
if os.fork() == 0:
    os.write(2, f"child {said}\\n".encode())
    os._exit(0)
os.wait()
os.write(log, f"log {said}\\n".encode())
"""


class Starts:
    def __init__(self, t, uid):
        self.t, self.uid, self.said = t, uid, 0
        self.dir = t.path(f"of{uid or 0}")
        os.mkdir(self.dir)
        os.chmod(self.dir, 0o777)
        self.store = os.path.join(self.dir, "store")

    def path(self, name):
        return os.path.join(self.dir, name)

    def once(self, *arguments, options=(), script=None, out=None, err=None, closed=(), cwd=None, color=None, status=0,
             name="warm"):
        """One start, told a number of its own: what it printed, its errors, whether the program was begun anew."""
        self.said += 1
        with open(self.path("in"), "w", encoding="ascii") as f:
            f.write(f"{self.said}\n")
        begun = os.path.getsize(self.path("starts")) if os.path.exists(self.path("starts")) else 0
        paths = [out or self.path(f"out{self.said}"), err or self.path(f"err{self.said}")]
        environment = {**trial.ENVIRONMENT, "STARTS": self.path("starts"), **({"COLOR": color} if color else {})}
        command = [script, *arguments] if script else ["/usr/bin/python3", "-c", PROGRAM, *arguments]
        pid = children.spawn([self.t.fsnap.binary, "run", "--warm", name, "--store", self.store, "--ready-fd", "5",
                              *options, "--", *command], stdin=self.path("in"), out=paths[0], err=paths[1],
                             env=environment, cwd=cwd or self.dir, uid=self.uid,
                             before=lambda: [os.close(fd) for fd in closed])
        ended = children.wait(pid, 30)
        texts = [open(path, encoding="utf-8").read() if os.path.isfile(path) else "" for path in paths]
        self.t.expect(f"start {self.said} {arguments} {options}: exit status ({texts[1]})", status, ended)
        return texts[0], texts[1], os.path.getsize(self.path("starts")) - begun


def anew(t, starts, what, named, *arguments, **how):
    """A start that differs: made anew, named; the next like it is from the new image."""
    out, err, begun = starts.once(*arguments, **how)
    t.expect(f"{what}: begun anew ({err})", 1, begun)
    t.expect_true(f"{what}: that is said ({err})", "started anew" in err and named in err)
    again, err, begun = starts.once(*arguments, **how)
    t.expect(f"{what}: from the new image then ({err})", 0, begun)
    t.expect(f"{what}: the same program", out.split(maxsplit=2)[2], again.split(maxsplit=2)[2])
    return again


def origins(t, starts):
    starts.once("one")
    t.expect("the second start is from the image", 0, starts.once("one")[2])
    t.expect_true("an argument", "'two'" in anew(t, starts, "an argument", "`two`", "two"))
    t.expect_true("one more", "'three'" in anew(t, starts, "one more", "three", "two", "three"))
    anew(t, starts, "one less", "`two` is gone")
    elsewhere = starts.path("elsewhere")
    os.mkdir(elsewhere)
    os.chmod(elsewhere, 0o777)
    t.expect_true("a directory", elsewhere in anew(t, starts, "a directory", elsewhere, cwd=elsewhere))
    anew(t, starts, "back again", starts.dir)
    anew(t, starts, "an argument again", "`one` is new", "one")
    t.expect("a variable that nobody has named", 0, starts.once("one", color="red")[2])
    t.expect_true("one that is named", "red" in anew(t, starts, "a variable", "COLOR=red", "one", color="red",
                                                     options=("--env", "COLOR")))
    t.expect_true("another value", "blue" in anew(t, starts, "a value", "COLOR=blue", "one",
                                                  options=("--env", "COLOR=blue")))
    t.expect("which comes from either", 0, starts.once("one", color="blue", options=("--env", "COLOR"))[2])


def files(t, starts):
    script = starts.path("script")
    for turn in ("old", "newer"):
        with open(script, "w", encoding="ascii") as f:
            f.write(f"#!/usr/bin/python3\n# {turn}\n{PROGRAM}")
        os.chmod(script, 0o755)
        if turn == "old":
            starts.once(script=script, name="script")
        else:
            anew(t, starts, "a script", script, script=script, name="script")
    data = starts.path("data")
    for turn in ("old", "newer"):
        with open(data, "w", encoding="ascii") as f:
            f.write(turn)
        if turn == "old":
            starts.once("x", options=("--depends", data), name="data")
        else:
            anew(t, starts, "a file", data, "x", options=("--depends", data), name="data")


def never_ready(t, starts):
    """One that ends has closed all it had, too."""
    out, err, _ = starts.once(script="/bin/false", name="ended", status=1)
    t.expect("one that ends is no image, and nobody's fault", ("", "", False),
             (out, err, os.path.exists(os.path.join(starts.store, "images", "ended.fsnap"))))


def told_otherwise(t, starts):
    starts.once("one", name="kept")
    image = os.path.join(starts.store, "images", "kept.fsnap")
    before = os.stat(image).st_ino
    out, err, begun = starts.once("two", name="kept", options=("--changed", "refuse"), status=125)
    t.expect_true(f"refused, with a way out: {err}", not begun and not out and "`two`" in err and "hint:" in err)
    out, err, begun = starts.once("two", name="kept", options=("--changed", "warn"))
    t.expect_true(f"a warning, and the old one: {out} {err}", not begun and "'one'" in out and "`two`" in err)
    out, err, begun = starts.once("two", name="kept", options=("--changed", "accept"))
    t.expect_true(f"the old one: {out} {err}", not begun and "'one'" in out and "two" not in err)
    t.expect("it is the same image", before, os.stat(image).st_ino)


def somebody_elses(t):
    """An image that was made by hand is not replaced, whatever is asked for."""
    pid = t.start(["/usr/bin/sleep", "1000"])
    t.dump(pid, "--kill", "--name", "byhand")
    result = t.fsnap.run("run", "--warm", "byhand", "--ready-fd", "5", "--", "/usr/bin/true", before=None)
    t.expect("by hand: exit status", 125, result.status)
    t.expect_true(f"by hand: {result.err}", "not made by" in result.err and "--changed accept" in result.hint)
    t.expect("by hand: it is there", 0, t.fsnap.run("verify", "byhand").status)


def streams(t, starts, first):
    name = f"s{first}"
    both = starts.path("both")
    where = {"file": {}, "null": {"out": "/dev/null", "err": "/dev/null"}, "one": {"out": both, "err": both},
             "closed": {"closed": (1,)}}[first]
    starts.once("s", name=name, **where)
    n = starts.said + 1
    out, err, begun = starts.once("s", name=name)
    t.expect(f"{name}: from the image", 0, begun)
    if first != "closed":
        t.expect_true(f"{name}: output is where this start has it: {out}", out.startswith(f"said {n} "))
    t.expect_true(f"{name}: errors, also of a child: {err}", f"err {n}\n" in err and f"child {n}\n" in err)
    if "out" not in where and not where:
        with open(starts.path(f"out{n - 1}"), encoding="utf-8") as f:
            t.expect(f"{name}: and not where the first one had it", [f"said {n - 1} "], [x[:len(f'said {n - 1} ')] for x in f])
    with open(starts.path("own.log"), encoding="utf-8") as f:
        t.expect(f"{name}: its own log stays its own", f"log {n}", f.read().splitlines()[-1])
    n = starts.said + 1
    out, err, begun = starts.once("s", name=name, closed=(1,))
    t.expect_true(f"{name}: without an output: {err}", not begun and f"err {n}\n" in err)
    n = starts.said + 1
    out, err, begun = starts.once("s", name=name, closed=(0,))
    t.expect_true(f"{name}: without an input: {out} {err}", not begun and "err \n" in err)


def body(t):
    somebody_elses(t)
    for uid in (None, 1000):
        starts = Starts(t, uid)
        if uid:
            streams(t, starts, "file")
            origins(t, starts)
            continue
        origins(t, starts)
        files(t, starts)
        never_ready(t, starts)
        told_otherwise(t, starts)
        for first in ("file", "null", "one", "closed"):
            streams(t, starts, first)


trial.main(body)
