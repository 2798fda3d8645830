#!/usr/bin/python3
"""Many at once into one store: every target is dumped while all others are, then dumped and killed, then restored,
all at the same time. Each is unharmed each time, and has its own image. FSNAP_SWEEP=full: two hundred;
FSNAP_CROWD=N: so many."""

import os
import resource
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

CROWD = int(os.environ.get("FSNAP_CROWD", 200 if sweep.FULL else 10))
PATIENCE = 900 if sweep.FULL else 120
PACE = 40  # two hundred of them take half a processor


class Place:
    """What a victim asks of a trial, in a directory of its own."""

    def __init__(self, t, number):
        self.t, self.helpers, self.work = t, t.helpers, t.path(f"victim.{number}")
        os.mkdir(self.work)

    def path(self, name):
        return os.path.join(self.work, name)

    def start(self, argv, *, ready, name):
        pid = children.spawn(argv, out=self.path(f"{name}.out"), cwd=self.work, session=True,
                             env=trial.ENVIRONMENT)
        if not children.wait_file(self.path(ready), pid, 60):
            raise trial.Stop(f"{argv[0]} did not get ready")
        return pid


def all_at_once(t, what, commands):
    """Runs one fsnap per line of `commands`, all of them at the same time; their reports."""
    began = time.monotonic()
    running = [t.fsnap.start(*words, "--json") for words in commands]
    reports = []
    for handle in running:
        result = t.fsnap.finish(handle, PATIENCE)
        t.expect(f"{what}: exit status of {' '.join(map(str, result.argv[3:6]))}: {result.err[-300:]}", 0,
                 result.status)
        reports.append(result.json)
    t.note(f"{what}: {time.monotonic() - began:.1f} s")
    return reports


def unharmed(t, when, victims):
    for number, one in enumerate(victims):
        t.expect(f"{when}: victim {number}", [], one.complaints())


def body(t):
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    victims = [victim.Victim(Place(t, number), PACE) for number in range(CROWD)]
    for one in victims:
        one.start()
    reports = all_at_once(t, "dumps", [("dump", "-t", v.pid, "--name", f"first-{i}") for i, v in enumerate(victims)])
    unharmed(t, "dumped at once", victims)
    t.expect("each image is of its own target", [v.pid for v in victims], [r["pid"] for r in reports])
    all_at_once(t, "dumps that kill", [("dump", "-t", v.pid, "--name", f"second-{i}", "--kill")
                                       for i, v in enumerate(victims)])
    t.expect("left by dump --kill", [], children.wait_gone([v.pid for v in victims], 10))
    for one in victims:
        children.statuses.pop(one.pid, None)
        one.forget_harm()
    reports = all_at_once(t, "restores", [("restore", f"second-{i}", "-d") for i in range(CROWD)])
    t.expect("each has its PID again", [v.pid for v in victims], [r["pid"] for r in reports])
    unharmed(t, "restored at once", victims)
    t.expect("every image verifies", 0, t.fsnap.run("verify", "--all", timeout=PATIENCE).status)
    t.note(f"{CROWD} at once, three times")


trial.main(body, 2 * PATIENCE)
