#!/usr/bin/python3
"""Queues that can only be read by emptying them, where the kernel does not let us look into them: a dump
is refused, nothing is taken out, and the target goes on."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_REFUSED  # noqa: E402

QUEUES = {"inotify_events": "inotify events", "mqueue_messages": "messages", "terminal_bytes": "not read",
          "udp_held": "holds back"}


def body(t):
    for kind, word in QUEUES.items():
        pid = holder.start(t, kind)
        if pid is None:
            t.note(f"skip: {kind}: not to be had here")
            continue
        before = t.settled(pid)
        os.environ["FSNAP_NO_PEEK"] = "1"
        result = t.fsnap.run("dump", "-t", pid, "--json")
        t.expect_error(result, EXIT_REFUSED, "UNSUPPORTED", str(pid), word)
        t.expect_unharmed(pid, before, f"refusing {kind}")
        holder.expect_well(t, pid, f"refusing {kind}")
        del os.environ["FSNAP_NO_PEEK"]
        t.expect(f"{kind}: where we may look", 0, t.fsnap.run("dump", "-t", pid, "--json").status)
        holder.stop(pid)


trial.main(body)
