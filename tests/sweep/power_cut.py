#!/usr/bin/python3
"""The power is cut while images are dumped, removed, signed, compacted, two at once: on ext4, xfs and btrfs, at random
moments, with any part of what was not flushed lost (lib/recorded_disk.py). What the file system's own recovery then
shows is the old set of images or the new one, each whole; what a command said was done is done. FSNAP_SWEEP=full:
FSNAP_CUTS (300) moments each instead of a few."""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import recorded_disk  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

CUTS = int(os.environ.get("FSNAP_CUTS", 300 if sweep.FULL else 8))
SLEEPER = "import sys, time; x = bytearray(300000); open(sys.argv[1], 'w').close(); time.sleep(1000)"


class History:
    """Which images there were, when. A name between two positions may be there or not."""

    def __init__(self, disk):
        self.disk, self.steps = disk, []

    def step(self, do, *, come=(), gone=()):
        before = self.disk.position()
        do()
        self.steps.append((before, self.disk.position(), set(come), set(gone)))

    def allowed(self, position):
        """(names that must be there, names that may be)."""
        sure, perhaps = set(), set()
        for before, after, come, gone in self.steps:
            if after <= position:
                sure = (sure | come) - gone
            elif before <= position:
                perhaps |= come | gone
                sure -= gone
        return sure, perhaps


def both_at_once(t, fsnap, pids, names):
    handles = [fsnap.start("dump", "-t", p, "--name", n, "--json") for p, n in zip(pids, names)]
    for handle in handles:
        t.expect("two at once", 0, fsnap.finish(handle).status)


def work(t, disk, fsnap, pids):
    """What is done while everything is recorded."""
    history = History(disk)

    def run(*words, come=(), gone=()):
        def do():
            result = fsnap.run(*words)
            t.expect(f"{disk.kind}: {' '.join(map(str, words))}: {result.err[-200:]}", 0, result.status)
        history.step(do, come=come, gone=gone)

    def dump(name, pid=pids[0], *more):
        run("dump", "-t", pid, "--name", name, *more, come=[name])

    with_dir = t.path(f"with-{disk.kind}")
    os.mkdir(with_dir)
    with open(os.path.join(with_dir, "file"), "w", encoding="utf-8") as f:
        f.write("content" * 1000)
    dump("a")
    dump("b")
    run("rm", "a", gone=["a"])
    dump("c")  # where a was
    history.step(lambda: both_at_once(t, fsnap, pids, ("d", "e")), come=["d", "e"])
    run("sign", "--key", t.path("key"), "c")
    chained = fsnap.run("track", "-t", pids[1]).status == 0  # else this kernel cannot
    dump("f", pids[1])
    dump("g", pids[1])
    run("rm", "f", gone=["f"])
    if chained:
        run("compact", "g")
    run("rm", "b", "d", gone=["b", "d"])
    dump("h", pids[0], "--with", with_dir)
    dump("i")
    run("rm", "h", gone=["h"])
    return history


def judge(t, directory, how, sure, perhaps):
    fsnap = t.fsnap
    fsnap.store = os.path.join(directory, "store")
    if not os.path.isdir(fsnap.store):
        t.expect(f"{how}: no store", set(), sure)
        return
    listed = fsnap.run("list", "--json")
    images = {x["name"]: x.get("error") for x in (listed.json or {}).get("images", [])}
    t.expect(f"{how}: damaged", {}, {x: e for x, e in images.items() if e})
    t.expect(f"{how}: missing", set(), sure - set(images))
    t.expect(f"{how}: a third thing", set(), set(images) - sure - perhaps)
    verified = fsnap.run("verify", "--all")
    t.expect(f"{how}: verify: {verified.err[-300:]}", 0 if images else verified.status, verified.status)
    for name in images:
        trees = os.path.join(fsnap.store, "images", f"{name}.files")
        if name == "h" and (found := [os.path.join(d, f) for d, _, fs in os.walk(trees) for f in fs if f == "file"]):
            t.expect(f"{how}: its files", True, all(open(x).read() == "content" * 1000 for x in found))


def on(t, kind, pids):
    disk = recorded_disk.RecordedDisk(t, kind)
    disk.mount()
    t.fsnap.store = os.path.join(disk.directory, "store")
    history = work(t, disk, t.fsnap, pids)
    disk.unmount()
    end = history.steps[-1][1]
    positions = [random.randrange(end + 1) for _ in range(CUTS - 1)] + [end]
    for cut in disk.cuts(positions):
        with cut as (position, directory, how):
            judge(t, directory, how, *history.allowed(position))
            if position == end:
                t.expect(f"{how}: the next dump", 0, t.fsnap.run("dump", "-t", pids[0], "--name", "next").status)
    t.note(f"{kind}: {len(positions)} cuts, {end >> 20} MiB recorded in {len(list(disk.records()))} steps")
    disk.remove()


def body(t):
    t.note(f"seed {sweep.seed()}")
    kinds = [kind for kind in recorded_disk.MAKE if not recorded_disk.missing(kind)]
    for kind in recorded_disk.MAKE:
        if kind not in kinds:
            t.note(f"skipped {kind}: {recorded_disk.missing(kind)}")
    t.expect_true("one file system at least", kinds)
    t.fsnap.name_store = False  # keygen has none
    t.expect("keygen", 0, t.fsnap.run("keygen", t.path("key")).status)
    t.fsnap.name_store = True
    pids = [t.start([sys.executable, "-c", SLEEPER, f"ready.{n}"], ready=f"ready.{n}") for n in range(2)]
    for kind in kinds:
        on(t, kind, pids)


trial.main(body, 7200 if sweep.FULL else 280)
