#!/usr/bin/python3
"""Stores that do not serve: missing, read-only, full, no directory, somebody else's; names that are none or taken.
Whatever happens, the target goes on and the images that were there stay good."""

import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import holder  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_IMAGE, EXIT_RESTORE, EXIT_STORE, EXIT_USAGE  # noqa: E402

MS_RDONLY, MS_REMOUNT = 1, 32


class Elsewhere:
    """Another store for a while."""

    def __init__(self, t, path):
        self.t, self.path = t, path

    def __enter__(self):
        self.kept, self.t.fsnap.store = self.t.fsnap.store, self.path

    def __exit__(self, *_):
        self.t.fsnap.store = self.kept


def tmpfs(t, name, options):
    path = t.path(name)
    os.mkdir(path)
    sandbox.mount("tmpfs", path, "tmpfs", 0, options)
    return path


def missing(t, pid):
    with Elsewhere(t, t.path("nowhere")):
        t.expect_error(t.fsnap.run("restore", "-d", "--json"), EXIT_STORE, "STORE_MISSING",
                       t.fsnap.store)
        t.expect_error(t.fsnap.run("restore", "--json"), EXIT_RESTORE, "STORE_MISSING")
        t.expect("asking creates no store", False, os.path.exists(t.path("nowhere")))
    open(t.path("file"), "w").close()
    for path in (t.path("file"), t.path("file/inside"), "/proc/nothing/here"):
        with Elsewhere(t, path):
            t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), EXIT_STORE,
                           ("STORE_MISSING", "STORE_READONLY", "STORE_IO"), path)
            holder.expect_well(t, pid, f"a dump into {path}")


def readonly(t, pid):
    path = tmpfs(t, "readonly", "size=64m")
    with Elsewhere(t, path):
        image = t.dump(pid)["image"]
        sandbox.mount("tmpfs", path, "tmpfs", MS_REMOUNT | MS_RDONLY, "")
        t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), EXIT_STORE, "STORE_READONLY", path)
        holder.expect_well(t, pid, "a dump into a read-only store")
        t.expect("an image in a read-only store verifies", 0, t.fsnap.run("verify", image).status)


def strangers(t, pid):
    """Who may write to the directory could put anything in an image's place, or lead what is written elsewhere."""
    others, open_to_all, led = t.path("others"), t.path("open"), t.path("led")
    for path in (others, open_to_all, led):
        os.mkdir(path, 0o700)
    os.chown(others, 1000, 1000)
    os.chmod(open_to_all, 0o777)
    os.symlink(t.work, os.path.join(led, "images"))
    for path, word in ((others, "another user"), (open_to_all, "may write"), (led, "images")):
        with Elsewhere(t, path):
            t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), EXIT_IMAGE, "IMAGE_OWNER", word)
    t.expect("nothing is in them", [], os.listdir(others) + os.listdir(open_to_all))
    holder.expect_well(t, pid, "dumps into directories of others")
    os.chmod(open_to_all, 0o1777)
    with Elsewhere(t, open_to_all):
        t.dump(pid)
        os.chown(os.path.join(open_to_all, "pool"), 1000, 1000)
        t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), EXIT_IMAGE, "IMAGE_OWNER", "pool")


def full(t, pid):
    path = tmpfs(t, "full", "size=1m")
    with Elsewhere(t, path):
        images = []
        for _ in range(60):
            result = t.fsnap.run("dump", "-t", pid, "--json")
            if result.status != 0:
                break
            images.append(result.json["image"])
        t.expect_error(result, EXIT_STORE, "STORE_FULL")
        holder.expect_well(t, pid, "a dump into a full store")
        listed = [x["name"] for x in t.fsnap.run("list", "--json").json["images"]]
        t.expect("images in the full store", sorted(images), sorted(listed))
        for image in images:
            t.expect("an earlier image verifies", 0, t.fsnap.run("verify", image).status)
    path = tmpfs(t, "tiny", "size=64k")
    with Elsewhere(t, path):
        t.expect_error(t.fsnap.run("dump", "-t", pid, "--json", "--kill"), EXIT_STORE, "STORE_FULL")
        holder.expect_well(t, pid, "a dump --kill into a tiny store")
        t.expect("images in it", [], t.fsnap.run("list", "--json").json["images"])


def limited(t, pid):
    """ulimit -f: a dump that would exceed it says so, and does not die of SIGXFSZ."""
    for most in (4096, 3 << 20):
        result = t.fsnap.run("dump", "-t", pid, "--json",
                             before=lambda most=most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
        t.expect_error(result, EXIT_STORE, "STORE_FULL", "File too large")
        t.expect_true("the hint names the limit", "ulimit -f" in result.hint)
        holder.expect_well(t, pid, "a dump under ulimit -f")


def names(t, pid):
    for name in ("", ".hidden", "-dash", "a/b", "..", "with space", "x" * 128, "new\nline"):
        result = t.fsnap.run("dump", "-t", pid, f"--name={name}", "--json")
        t.expect_true(f"name {name!r}: exit status {result.status} is that of a bad name",
                      result.status in (EXIT_IMAGE, EXIT_USAGE))
        t.expect_error(result, result.status, ("BAD_NAME", "USAGE"))
    t.dump(pid, "--name", "taken")
    t.expect_error(t.fsnap.run("dump", "-t", pid, "--name", "taken", "--json"), EXIT_IMAGE,
                   "IMAGE_EXISTS", "taken")
    holder.expect_well(t, pid, "dumps with bad names")
    t.expect("the image whose name was wanted verifies", 0, t.fsnap.run("verify", "taken").status)
    for command in (["restore", "-d"], ["verify"], ["inspect"], ["rm"]):
        t.expect_error(t.fsnap.run(*command, "no-such", "--json"), EXIT_IMAGE, "IMAGE_MISSING",
                       "no-such")
    t.expect_error(t.fsnap.run("rm", "taken", "no-such", "--json"), EXIT_IMAGE, "IMAGE_MISSING")
    t.expect("rm with a wrong name removes nothing", 0, t.fsnap.run("verify", "taken").status)


def body(t):
    pid = holder.start(t, "nothing")
    before = t.settled(pid)
    missing(t, pid)
    readonly(t, pid)
    full(t, pid)
    strangers(t, pid)
    limited(t, pid)
    names(t, pid)
    t.expect_unharmed(pid, before, "all of this")
    holder.stop(pid)
    t.restore("taken")
    holder.expect_well(t, pid, "restoring the image that was there all the time")


trial.main(body)
