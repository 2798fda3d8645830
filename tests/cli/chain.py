#!/usr/bin/python3
"""Images that build on one another (fsnap track, dump, compact, rm): a tree whose memory changes in every way between
dumps comes back from each of them as it was, whichever of the others are removed or stand alone; its images are
small. A tracker or a dump that is killed costs a full image, never a wrong one; so does a parent that was removed."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import changing  # noqa: E402
import children  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_IMAGE, EXIT_TARGET  # noqa: E402


def run(t, status, *args):
    result = t.fsnap.run(*args, "--json")
    if not t.expect(" ".join(map(str, args)), status, result.status):
        print(result, end="")
    return result


def restored(t, tree, image):
    tree.end()
    t.restore(image)
    tree.check(f"restored from {image}")


def named(comm):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name == comm and rest.split()[0] != "Z":
            found.append(int(pid))
    return found


def kept_by(t, pid):
    return named("fsnap-track")


def is_watched(t, pid):
    return "watch" in run(t, 0, "heat", "-t", pid).json["source"]


def files_are_watched(t, tree):
    """Tracking watches what files are read, too, until it ends; a watch that was there before stays."""
    run(t, 0, "track", "-t", tree.pid, "--heat", "never")
    t.expect("--heat never", False, is_watched(t, tree.pid))
    run(t, 0, "track", "-t", tree.pid, "--stop")
    if not run(t, 0, "track", "-t", tree.pid).json["heat_watched"]:
        print("files are not watched: this kernel or user may not use BPF")
    else:
        t.expect("tracking watches files", True, is_watched(t, tree.pid))
    run(t, 0, "track", "-t", tree.pid, "--stop")
    t.expect("... as long as it lasts", False, is_watched(t, tree.pid))
    if t.fsnap.run("heat", "-t", tree.pid, "--watch").status == 0:
        run(t, 0, "track", "-t", tree.pid)
        run(t, 0, "track", "-t", tree.pid, "--stop")
        t.expect("what was there before goes on", True, is_watched(t, tree.pid))
        run(t, 0, "heat", "-t", tree.pid, "--unwatch")


def images_of_a_tree(t, tree):
    run(t, 0, "track", "-t", tree.pid)
    run(t, 2, "track", "-t", tree.pid)
    reports = []
    for i in range(6):
        reports.append(t.dump(tree.pid, "--name", f"c{i}", *(["--live"] if i % 2 == 0 else ["--no-live"])))
        tree.check(f"left running after c{i}")
        tree.step()
    t.expect("parents", ["", "c0", "c1", "c2", "c3", "c4"], [r["parent"] for r in reports])
    t.expect_true("the first is whole", reports[0]["pages"] > 10000)
    t.expect("which were live", [True, False] * 3, [r["rounds"] > 0 for r in reports])
    t.expect_true("what was live stood still for little", reports[0]["frozen_pages"] < reports[0]["pages"] / 2)
    # the executed child is new in c3 or c4; else what a step changes is a few per cent
    small = [r["pages"] for r in reports[1:]]
    t.expect_true(f"the others are small: {small}", min(small) < 1500 and small[0] < 1500)
    t.expect_true("and refer to what is not stored", all(r["referred_pages"] > 3000 for r in reports[1:]))
    t.expect_true("shared memory and private pages of files, too", all(r["referred_pages"] > 7000 for r in reports[1:3]))
    return reports


def live_where_it_pays(t, tree):
    """Where more than a MiB has changed, it is copied before the freeze, if nothing else was said."""
    run(t, 0, "track", "-t", tree.pid, "--heat", "never")
    reports = []
    for changes, options in ((0, ["--no-live"]), (4, []), (0, []), (4, ["--no-live"])):
        for _ in range(changes):
            tree.step()
        reports.append(t.dump(tree.pid, *options))
    t.expect("changed much, live", [False, True, False, False], [r["rounds"] > 0 for r in reports])
    t.expect_true("copied ahead", reports[1]["live_pages"] > 256)
    restored(t, tree, reports[1]["image"])
    run(t, 0, "rm", "--all")


def whichever_are_left(t, tree):
    listed = {x["name"]: x for x in run(t, 0, "list").json["images"]}
    t.expect("parent in the list", "c4", listed["c5"].get("parent"))
    t.expect_true("what it refers to", listed["c5"]["referred_bytes"] > 3000 * 4096)
    t.expect("ancestors, by inspect", True, "c0" in run(t, 0, "inspect", "c5").json["builds_on"])
    run(t, 0, "verify", "--all")
    restored(t, tree, "c5")
    restored(t, tree, "c2")
    run(t, 0, "rm", "c0")
    run(t, 0, "rm", "c3")
    restored(t, tree, "c4")
    t.expect_true("compact says what it copied", run(t, 0, "compact", "c4").json["copied_bytes"] > 3000 * 4096)
    t.expect("and then nothing", 0, run(t, 0, "compact", "c4").json["copied_bytes"])
    restored(t, tree, "c4")
    restored(t, tree, "c1")
    t.expect("compact where there is no store yet is told", "IMAGE_MISSING", t.fsnap.run("compact", "c4", "--store", t.path("nowhere"), "--json").code)
    ancestors = os.path.join(t.fsnap.store, "ancestors")
    aside = t.path("aside")
    os.rename(ancestors, aside)
    refused = run(t, EXIT_IMAGE, "restore", "c5", "-d")
    t.expect("code", "IMAGE_MISSING", refused.code)
    t.expect_true("names what is missing", "c" in refused.message and "compact" in refused.hint)
    os.rename(aside, ancestors)
    restored(t, tree, "c5")
    run(t, 0, "rm", "--all")
    t.expect("files of images without a name", [], os.listdir(ancestors))


def killed(t, tree):
    """The tree was restored: nobody tracks it any more."""
    run(t, 0, "track", "-t", tree.pid)
    t.dump(tree.pid, "--name", "k0")
    tree.step()
    for pid in kept_by(t, tree.pid):
        os.kill(pid, signal.SIGKILL)
    t.until("the tracker is gone", lambda: not kept_by(t, tree.pid))
    report = t.dump(tree.pid, "--name", "k1")
    t.expect("without its tracker it stands alone", "", report["parent"])

    run(t, 0, "track", "-t", tree.pid)
    t.dump(tree.pid, "--name", "k2")
    chance = random.Random(1)
    for i in range(6):
        tree.step()
        handle = t.fsnap.start("dump", "-t", tree.pid, "--name", f"killed{i}")
        time.sleep(chance.uniform(0.002, 0.08))
        try:
            os.kill(handle[0], signal.SIGKILL)
        except ProcessLookupError:
            pass
        t.fsnap.finish(handle)
    tree.check("after dumps that were killed")
    t.dump(tree.pid, "--name", "k3")
    tree.step()
    report = t.dump(tree.pid, "--name", "k4")
    t.expect("the chain goes on", "k3", report["parent"])
    run(t, 0, "verify", "--all")

    # two at once: one of them, at least, is refused or comes second, and neither is wrong
    tree.step()
    both = [t.fsnap.start("dump", "-t", tree.pid, "--name", f"both{i}", "--json") for i in range(2)]
    results = [t.fsnap.finish(x) for x in both]
    t.expect("two dumps at once", [], [r.status for r in results if r.status not in (0, EXIT_TARGET)])
    t.expect_true("one of them was made", any(r.status == 0 for r in results))
    tree.step()
    t.dump(tree.pid, "--name", "k5")
    made = next(f"both{i}" for i in range(2) if results[i].status == 0)
    restored(t, tree, "k5")
    restored(t, tree, made)
    restored(t, tree, "k3")


def without_parent(t, tree):
    run(t, 0, "track", "-t", tree.pid)
    t.dump(tree.pid, "--name", "w0")
    run(t, 0, "rm", "w0")
    report = t.dump(tree.pid, "--name", "w1")
    t.expect("its parent was removed", "", report["parent"])
    t.expect_true("a note says so", "w0" in str(report["notes"]))
    run(t, 0, "track", "-t", tree.pid, "--stop")
    t.until("the tracker ends", lambda: not kept_by(t, tree.pid))
    run(t, 2, "track", "-t", tree.pid, "--stop")
    t.expect("not tracked any more", "", t.dump(tree.pid, "--name", "w2")["parent"])


def named_elsewhere(t, tree):
    """A tree that is tracked cannot be watched. An image that is removed while it is streamed leaves its
    ancestor to whoever removes something next, even nothing; a record goes with its image, and is in nobody's way."""
    run(t, 0, "track", "-t", tree.pid)
    t.dump(tree.pid, "--name", "s0")
    tree.step()
    t.dump(tree.pid, "--name", "s1", "--live")
    refused = t.fsnap.run("watch", "-t", tree.pid)
    t.expect_error(refused, 2, "USAGE", "is tracked")
    t.expect_true("it tells how to end tracking", "--stop" in refused.hint)
    run(t, 0, "rm", "s0")
    tree.end()
    run(t, 0, "restore", "s1", "-d", "--memory", "stream", "--record", "2")
    run(t, 0, "rm", "s1")
    ancestors, images = (os.path.join(t.fsnap.store, x) for x in ("ancestors", "images"))
    t.expect("an ancestor that is being read", 1, len(os.listdir(ancestors)))
    with open(os.path.join(images, "gone.record"), "w") as f:
        f.write("of an image that is not there")
    t.until("all has come", lambda: not named("fsnap-pager"), 20)
    tree.check("restored, its image removed meanwhile")
    run(t, 0, "rm", "--trim")
    t.expect("what is left", [], os.listdir(ancestors) + os.listdir(images))


def body(t):
    t.fsnap.name_store = False
    tree = changing.Tree(t)
    if t.control:
        for _ in range(4):
            tree.step()
            tree.check("control")
        return
    probe = t.fsnap.run("track", "-t", tree.pid, "--json")
    if probe.code == "KERNEL_LACKS" or "cannot tell" in probe.message:
        print("skipped: this kernel cannot tell which memory has been written (Linux 6.7 can)")
        sys.exit(77)
    run(t, 0, "track", "-t", tree.pid, "--stop")
    files_are_watched(t, tree)
    images_of_a_tree(t, tree)
    whichever_are_left(t, tree)
    live_where_it_pays(t, tree)
    killed(t, tree)
    without_parent(t, tree)
    run(t, 0, "rm", "--all")
    named_elsewhere(t, tree)
    tree.end()


trial.main(body)
