#!/usr/bin/python3
"""A live dump of a tracked tree is ended at its N-th system call, or that call fails. The copies it made before the freeze
have taken the marks of what had changed: the next image holds all of it the same, and the tree goes on unharmed."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import changing  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

PTRACE_SEIZE = 0x4206
POINTS, SECONDS = 60, 2


def body(t):
    t.fsnap.name_store = False
    seed = sweep.seed()
    tree = changing.Tree(t)
    probe = t.fsnap.run("track", "-t", tree.pid, "--heat", "never", "--json")
    if probe.code == "KERNEL_LACKS" or "cannot tell" in probe.message:
        print("skipped: this kernel cannot tell which memory has been written (Linux 6.7 can)")
        sys.exit(77)
    t.expect("track", 0, probe.status)
    for _ in range(3):
        tree.step()  # its children are there from now on, and stopped only to be frozen
    t.dump(tree.pid, "--name", "base", "--no-live")
    tree.step()
    status, told = sweep.killed_at(t, 0, 0, "dump", "-t", tree.pid, "--name", "counted", "--live")
    t.expect("counted", 0, status)
    total = int(told.split()[0])
    t.note(f"{total} system call stops in a dump; seed {seed}")
    images = ["counted"]

    def next_image(where):
        """Nothing has been written since."""
        report = t.dump(tree.pid, "--name", f"image{len(images)}")
        images.append(report["image"])
        tree.check(f"left running after {where}, and {images[-1]}")
        return report

    tree.step()
    os.environ["STOPAT_REQUEST"] = f"{PTRACE_SEIZE:x}"
    status, told = sweep.killed_at(t, 1, 0, "dump", "-t", tree.pid, "--name", "marked", "--live")
    del os.environ["STOPAT_REQUEST"]
    t.expect(f"killed as the freeze begins: {told}", 137, status)
    t.expect("what builds on taken marks", "", next_image(told)["parent"])
    numbers = [x for x in sweep.numbers(total, POINTS) if x > total / 2 or sweep.FULL]  # before, nothing is touched
    random.shuffle(numbers)
    began = time.monotonic()
    for i, number in enumerate(numbers):
        if not sweep.FULL and time.monotonic() - began > SECONDS:
            break
        tree.step()
        words = ("dump", "-t", tree.pid, "--name", f"ended{number}", "--live")
        status, where = sweep.killed_at(t, number, 0, *words) if i % 2 else sweep.faulted(t, number, *words)
        if status == 0:
            images.append(f"ended{number}")
        next_image(where)
    t.note(f"{len(images) - 2} more tried")
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all").status)
    for image in images:
        tree.end()
        t.restore(image)
        tree.check(f"restored from {image}")
    tree.end()


if __name__ == "__main__":
    trial.main(body, 7200 if sweep.FULL else 120)
