"""The mode `faulted` of run-specimen: a system call of fsnap fails, or it gets no memory, at one place after the other
(sweep.places), while it dumps and restores this kind of state. What could not be done is said; the specimen is as it was, or nothing of it is left."""

import os
import signal

import children
import sweep

POINTS = 3  # of dumps, and of restores


class Trial:
    """What sweep.py asks of its trial, for a specimen."""
    def __init__(self, specimen, helpers):
        self.specimen, self.helpers, self.fsnap, self.checks = specimen, helpers, specimen.fsnap, 0

    def path(self, name):
        return self.specimen.path(os.path.join("fsnap", name))

    def fail(self, text):
        self.specimen.failures.append(text)

    def expect(self, what, expected, seen):
        self.checks += 1
        if expected != seen:
            self.fail(f"{what}: expected {expected!r}, seen {seen!r}")
        return expected == seen


def others():
    return [int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1]


def end(pids):
    for pid in reversed(pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    left = children.wait_gone(pids, 5)
    children.statuses.clear()
    return left


def dumps(t, before):
    s = t.specimen
    words = ("dump", "-t", s.root, *(("--tcp", s.words["tcp"]) if "tcp" in s.words else ()), "--name")
    for place in sweep.places(t, POINTS, *words, "counted", again=lambda: s.fsnap.run("rm", "counted")):
        _status, where = sweep.failing(t, place, *words, "try")
        s.compare(before, where)
        sweep.passed(place)
        s.fsnap.run("rm", "try")


def restores(t, before, image):
    s = t.specimen
    words = ("restore", image, *s.options, "-d")

    def gone():
        end(others())
        s.meanwhile()
    for place in sweep.places(t, POINTS, *words, again=gone):
        gone()
        status, where = sweep.failing(t, place, *words)
        sweep.passed(place)
        if status == 0:
            s.compare(before, where)
        else:
            t.expect(f"{where} (status {status}): processes left", [], children.wait_gone(others(), 2))
    end(others())


def play(specimen, helpers):
    """A round of a specimen that is ready; the tree that runs then can be told to check itself."""
    t = Trial(specimen, helpers)
    before, _report = specimen.dump()
    dumps(t, before)
    before, report = specimen.dump("--kill")
    t.expect("dump --kill left", [], children.wait_gone(specimen.pids, 5))
    children.statuses.clear()
    specimen.meanwhile()
    restores(t, before, report["image"])
    specimen.meanwhile()
    specimen.restore_detached(report)
    specimen.compare(before, "after the restore")
