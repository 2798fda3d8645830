#!/usr/bin/python3
"""A program that was dumped on another kernel build, as far as program, image and fsnap can tell: it
goes on calling the vDSO it knows, and this kernel answers; a dump of what has come of it restores
as well. A thread that stood inside that vDSO is refused."""

import os
import re
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_GENERAL  # noqa: E402

AT_SYSINFO_EHDR, JUMP = 33, 0xe9


class Foreign:
    def __init__(self, t, number, *more, uid=None):
        self.t, self.log = t, t.path(f"log.{number}")
        open(self.log, "w").close()
        os.chmod(self.log, 0o666)
        self.pid = t.start([os.path.join(t.helpers, "foreign"), self.log, *more], uid=uid, name=f"foreign{number}")
        t.until("it is at work", lambda: "round" in self.said())
        first = self.said().splitlines()[0]
        found = re.fullmatch(r"at 0x(\w+) 0x(\w+) replaced (\d+) counted (\d+)", first)
        t.expect_true(f"the program has changed over to its own vDSO ({first})",
                      found and int(found[3]) >= 4 and int(found[4]) >= 8)
        self.data, self.vdso = found[1], found[2]

    def said(self):
        with open(self.log, encoding="utf-8") as f:
            return f.read()

    def well(self, when):
        rounds = self.said().count("round")
        self.t.until(f"{when}, it goes on", lambda: self.said().count("round") > rounds + 5)
        self.t.expect(f"{when}, what was wrong", [], [x for x in self.said().splitlines() if "wrong" in x])

    def abroad(self, name):
        """Its image, as the other kernel's fsnap would have written it."""
        report = self.t.dump(self.pid, "--kill")
        status = children.wait(children.spawn(
            [os.path.join(self.t.helpers, "foreign_vdso"), self.t.fsnap.store, report["image"], name,
             self.data, self.vdso]), 20)
        self.t.expect("the image is changed", 0, status)
        return report["image"]

    def maps(self):
        with open(f"/proc/{self.pid}/maps", encoding="utf-8") as f:
            return f.read()


def expect_redirected(t, foreign):
    kernels = re.search(r"^(\w+)-\w+ r-xp.* \[vdso\]$", foreign.maps(), re.M)
    t.expect_true("this kernel's vDSO is there, at another place",
                  kernels and kernels[1] != foreign.vdso.lstrip("0"))
    t.expect_true("at the old place is memory", re.search(rf"^{foreign.vdso}-\w+ r-xp 00000000 00:00 0",
                                                         foreign.maps(), re.M))
    with open(f"/proc/{foreign.pid}/mem", "rb", buffering=0) as mem:
        mem.seek(int(foreign.vdso, 16) + 0x1e40)
        t.expect("the first function is a jump", JUMP, mem.read(1)[0])
        mem.seek(int(foreign.data, 16))
        t.expect("the old data is zeroes", bytes(4096), mem.read(4096))
    with open(f"/proc/{foreign.pid}/auxv", "rb") as f:
        auxv = dict(struct.iter_unpack("QQ", f.read()))
    t.expect("AT_SYSINFO_EHDR", int(foreign.vdso, 16), auxv.get(AT_SYSINFO_EHDR))


def abroad_and_back(t, number, uid):
    foreign = Foreign(t, number, uid=uid)
    name = f"abroad{number}"
    foreign.abroad(name)
    explained = t.fsnap.run("restore", name, "--explain")
    for words in ("vDSO of this kernel, beside that of the program", "zeroes for old [vvar]",
                  "old vDSO, whose functions jump to this kernel's"):
        t.expect_true(f"the explanation says: {words}", words in explained.out)
    report = t.restore(name)
    t.expect("PID after the restore", foreign.pid, report["pid"])
    t.expect_true("a note tells of it", "6.1.0-other" in str(report.get("notes")))
    expect_redirected(t, foreign)
    foreign.well("redirected")
    t.dump(foreign.pid)
    foreign.well("dumped again")
    t.round_trip(foreign.pid)
    expect_redirected(t, foreign)
    foreign.well("restored again")
    os.kill(foreign.pid, 9)
    t.expect("gone", [], children.wait_gone([foreign.pid], 5))
    children.statuses.pop(foreign.pid, None)


def caught_inside(t):
    foreign = Foreign(t, 3, "inside")
    original = foreign.abroad("inside")
    result = t.fsnap.run("restore", "inside", "-d", "--json")
    t.expect_error(result, EXIT_GENERAL, "KERNEL_LACKS", foreign.pid, "inside the vDSO of 6.1.0-other")
    t.restore(original)
    foreign.well("on its own kernel")


def body(t):
    if t.control:
        foreign = Foreign(t, 0)
        foreign.well("left alone")
        return
    abroad_and_back(t, 1, None)
    abroad_and_back(t, 2, 1000)
    caught_inside(t)


trial.main(body)
