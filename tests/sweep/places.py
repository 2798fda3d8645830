#!/usr/bin/python3
"""A system call of fsnap fails, or it gets no memory, at one place of it after the other (programs/site.h), in what the other sweeps do not drive:
dumps live, tracked, compressed, encrypted, restores of such images and streamed ones, templates, and all commands that
read, write or change images. By default some places of each; FSNAP_SWEEP=full: all. It says so and ends with a proper
status, or does without; the target is unharmed, no process is left, the images are whole, the next one works."""

import json
import os
import random
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import faulted  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402
from fsnap import EXIT_TARGET  # noqa: E402

POINTS, SHARE, SECONDS = 2, 0.4, 25  # of each command; of the commands, and for how long, unless all places are wanted
BPF = "321"
NO_STORE = ("keygen", "track")  # commands that have no --store


def processes():
    children.reap()
    return set(faulted.others())


class Commands:
    """fsnap with one call failing; what each command needs before, and what has to be taken away after it."""
    def __init__(self, t):
        self.t, self.statuses, self.victim, self.places = t, {}, None, 0
        self.until = time.monotonic() + SECONDS

    def run(self, *words):
        result = self.t.fsnap.run(*words)
        if not self.t.expect(" ".join(map(str, words)), 0, result.status):
            raise trial.Stop(str(result))
        return result

    def whole(self, where):
        """No image is damaged."""
        listed = {x["name"]: x.get("error") for x in self.run("list", "--json").json["images"]}
        damaged = {x: y for x, y in listed.items() if y and y["code"] != "IMAGE_KEY"}  # of a passphrase
        self.t.expect(f"{where}: damaged images", {}, damaged)
        return listed

    def unharmed(self, where):
        if self.victim and not self.t.expect(f"{where}: the target", [], self.victim.complaints()[:8]):
            raise trial.Stop("there is nothing to go on with")

    def each(self, *words, before=lambda: None, after=lambda: None, look=lambda where, status, listed: None):
        """before(), the command failing at a place, look(), after(): which also ends what was begun."""
        if not sweep.THOROUGH and (random.random() > SHARE or time.monotonic() > self.until):
            return

        def prepare():
            self.t.fsnap.name_store = True
            before()
            self.t.fsnap.name_store = words[0] not in NO_STORE

        def anew():
            self.t.fsnap.name_store = True
            after()
            prepare()
        prepare()
        found = sweep.places(self.t, POINTS, *words, again=anew)
        self.t.fsnap.name_store = True
        after()
        there = processes()
        for place in found:
            prepare()
            status, where = sweep.failing(self.t, place, *words)
            self.t.fsnap.name_store = True
            where = f"{' '.join(map(str, words))}: {where} (status {status})"
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.places += 1
            sweep.passed(place)
            self.unharmed(where)
            look(where, status, self.whole(where))
            after()
            self.t.until(f"{where}: no process is left", lambda: processes() <= there, 10)
        prepare()
        self.run(*words)  # nothing is in the way of the next
        self.t.fsnap.name_store = True
        after()


def without_bpf(t):
    """Each of the calls by which programs come into the kernel; libbpf, where a probe fails, goes without memory that they
    share with fsnap."""
    pid = t.start(["/usr/bin/sleep", "1000"], name="sleeper")
    words = ("dump", "-t", pid, "--heat", "always", "--name")
    for place in [place for place, nr in sweep.calls(t, *words, "counted") if nr == BPF]:
        status, where = sweep.failing(t, place, *words, "try")
        t.expect(f"{where}: done without", 0, status)
        t.fsnap.run("rm", "try")
    os.kill(pid, signal.SIGKILL)
    children.wait_gone([pid], 5)
    t.fsnap.run("rm", "counted")


def dumps(t, c, v, key):
    def forget():
        t.fsnap.run("rm", "try")

    def named(where, status, listed):
        t.expect(f"{where}: its image exists", status == 0, "try" in listed)
    dump = ("dump", "-t", v.pid, "--name", "try")
    for more in (("--live",), ("--compress", "lz4"), ("--encrypt", key), ("--heat", "always"),
                 ("--with", t.path("along"), "--sync-files"), ("--encrypt", "passphrase:" + t.path("words"))):
        c.each(*dump, *more, after=forget, look=named)
    os.environ["FSNAP_SNAPSHOT"] = "1"
    c.each(*dump, "--no-live", "--max-freeze", "1us", after=forget, look=named)
    del os.environ["FSNAP_SNAPSHOT"]


def tracked(t, c, v):
    def stop():
        t.fsnap.name_store = False
        t.fsnap.run("track", "-t", v.pid, "--stop")
        t.fsnap.name_store = True

    def tracked_or_not(where, status, _listed):
        t.fsnap.name_store = False
        t.expect(f"{where}: can be ended", status == 0, t.fsnap.run("track", "-t", v.pid, "--stop").status == 0)
        t.fsnap.name_store = True
    c.each("track", "-t", v.pid, after=stop, look=tracked_or_not)
    t.fsnap.name_store = False
    c.run("track", "-t", v.pid)
    t.fsnap.name_store = True
    c.run("dump", "-t", v.pid, "--name", "first")
    c.each("dump", "-t", v.pid, "--name", "try", after=lambda: t.fsnap.run("rm", "try"))

    def second():
        t.fsnap.run("rm", "second")
        c.run("dump", "-t", v.pid, "--name", "second")
    c.each("compact", "second", before=second)
    stop()
    c.run("dump", "-t", v.pid, "--name", "kept")


def looks(t, c, v, key):
    made = c.run("dump", "-t", v.pid, "--name", "sealed", "--encrypt", key, "--compress", "zstd", "--json")
    with open(t.path("times"), "w", encoding="utf-8") as f:
        json.dump(made.json, f)
    page, core = t.path("report.html"), t.path("core")

    def nothing():
        for path in (page, core, t.path("other"), t.path("other.pub")):
            if os.path.exists(path):
                os.unlink(path)
    for words in (("list",), ("inspect", "kept"), ("inspect", "kept", "--stacks"), ("inspect", "sealed", "--json", "--decrypt", key),
                  ("inspect", "-t", v.pid, "--threads"), ("inspect", "-t", v.pid, "--stacks"), ("verify", "--all"),
                  ("verify", "sealed", "--decrypt", key), ("heat", "kept"), ("heat", "-t", v.pid),
                  ("prefetch", "kept", "--prefetch", "all"),
                  ("report", "kept", "-o", page), ("report", "kept", "--timeline", t.path("times"), "-o", page), ("core", "kept", "-o", core), ("core", "sealed", "-o", core, "--decrypt", key),
                  ("keygen", t.path("other"))):  # not doctor: who is traced may not trace, which it calls fatal
        c.each(*words, before=nothing)

    def unwatched():
        t.fsnap.run("heat", "-t", v.pid, "--unwatch")
    c.each("heat", "-t", v.pid, "--watch", after=unwatched)
    c.each("heat", "-t", v.pid, "--unwatch", before=lambda: c.run("heat", "-t", v.pid, "--watch"), after=unwatched)


def changes(t, c, v):
    signer = t.path("signer")
    t.fsnap.name_store = False
    c.run("keygen", signer)
    t.fsnap.name_store = True

    def fresh():
        t.fsnap.run("rm", "try")
        c.run("dump", "-t", v.pid, "--name", "try")

    def signed():
        fresh()
        c.run("sign", "try", "--key", signer)
    c.each("sign", "try", "--key", signer, before=fresh)
    c.each("verify", "try", "--key", signer + ".pub", before=signed)
    c.each("rm", "try", before=fresh)
    c.each("rm", "try", "--trim", before=fresh)


def watched(t, c):
    """A tree that ends soon, and the watch with it, or before that has begun."""
    pid = [0]

    def begin():
        pid[0] = t.start(["/usr/bin/sleep", "0.3"], name="short")

    def over():
        for name in list(c.whole("watched")):
            if name.startswith("watched"):
                t.fsnap.run("rm", name)
        children.wait_gone([pid[0]], 5)
    t.fsnap.name_store = True
    begin()
    found = sweep.places(t, POINTS, "watch", "-t", pid[0], "--every", "50ms", "--name", "watched",
                         again=lambda: (over(), begin()), ends=(0, EXIT_TARGET))
    over()
    for place in found:
        begin()
        status, where = sweep.failing(t, place, "watch", "-t", pid[0], "--every", "50ms", "--name", "watched")
        c.places += 1
        sweep.passed(place)
        children.wait_gone([pid[0]], 5)
        t.expect(f"{where} (status {status}): the target's end", 0, children.statuses.get(pid[0]))
        over()


def restores(t, c, v, key):
    """The victim is killed for it; it is looked at whenever it is back."""
    def gone():
        faulted.end(faulted.others())

    def back(where, status, _listed):
        if status == 0:
            v.forget_harm()
            t.expect(f"{where}: what was restored", [], v.complaints()[:8])
    c.run("dump", "-t", v.pid, "--name", "locked", "--encrypt", key, "--compress", "lz4")
    c.run("dump", "-t", v.pid, "--name", "withal", "--with", t.path("along"))
    t.fsnap.name_store = False
    c.run("track", "-t", v.pid)
    t.fsnap.name_store = True
    c.run("dump", "-t", v.pid, "--name", "base")
    c.run("dump", "-t", v.pid, "--name", "upon", "--kill")
    gone()
    for words in (("upon",), ("upon", "--memory", "stream"), ("upon", "--new-pids"), ("upon", "--memory", "stream", "--record", "1"),
                  ("locked", "--decrypt", key), ("locked", "--decrypt", key, "--memory", "stream"),
                  ("upon", "--stats", "1"), ("upon", "--clocks", "go-on"), ("upon", "--pid-ns", "--ipc-ns"),
                  ("upon", "--clones", "2"), ("withal", "--with", f"{t.path('along')}={t.path('elsewhere')}")):
        same = not {"--new-pids", "--pid-ns", "--clocks", "--clones"} & set(words)
        c.each("restore", *words, "-d", before=lambda: shutil.rmtree(t.path("elsewhere"), ignore_errors=True), after=gone,
               **({"look": back} if same else {}))
    c.each("restore", "upon", "--explain")
    started(t, c, gone)
    templates(t, c, gone)


def started(t, c, gone):
    """By `run`: the first time, and from the image that is made then."""
    words = ("run", "--warm", "warm", "--ready-line", "^ready$", "--", "/bin/sh", "-c", "echo ready; sleep 1")

    def none():
        gone()
        t.fsnap.run("rm", "warm")

    def made():
        none()
        c.run(*words)
    c.each(*words, before=none, after=none)
    c.each(*words, before=made, after=none)


def templates(t, c, gone):
    def held():
        if not c.run("template", "list", "--json").json["templates"]:
            c.run("template", "start", "upon")

    def dropped():
        t.fsnap.run("template", "stop", "--all")
        gone()
    c.each("template", "start", "upon", after=dropped)
    c.each("template", "copy", "upon", "-d", before=held, after=dropped)
    c.each("template", "list", before=held, after=dropped)
    c.each("template", "stop", "upon", before=held, after=dropped)


def body(t):
    seed = sweep.seed()
    c = Commands(t)
    key = t.path("secret")
    t.fsnap.name_store = False
    c.run("keygen", "--secret", key)
    t.fsnap.name_store = True
    os.environ["FSNAP_KEY"] = key  # to list what is encrypted
    os.makedirs(t.path("along/below"))
    with open(t.path("along/one"), "w", encoding="ascii") as f:
        f.write("a file" * 1000)
    os.link(t.path("along/one"), t.path("along/two"))
    os.symlink("../one", t.path("along/below/link"))
    os.mkfifo(t.path("along/below/fifo"))
    with open(t.path("words"), "w", encoding="ascii") as f:
        f.write("the words of a key\n")
    os.chmod(t.path("words"), 0o600)
    without_bpf(t)
    v = c.victim = victim.Victim(t)
    v.start()
    dumps(t, c, v, key)
    tracked(t, c, v)
    looks(t, c, v, key)
    changes(t, c, v)
    c.victim = None
    watched(t, c)
    restores(t, c, v, key)
    for pid in faulted.others():
        os.kill(pid, signal.SIGKILL)
    t.note(f"{c.places} places; exit statuses: {c.statuses} (seed {seed})")
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all", "--decrypt", key).status)


trial.main(body, 7200 if sweep.THOROUGH else 280)
