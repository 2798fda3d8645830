#!/usr/bin/python3
"""Descriptors under way in a Unix socket that cannot be put into a message again: a dump is refused, names the
process, the socket's descriptor and what is under way, says what helps, and the target goes on."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_REFUSED  # noqa: E402

KINDS = {"userfaultfd": "[userfaultfd]: only the process", "epoll": "it watches anon_inode:[signalfd]"}


def body(t):
    for kind, word in KINDS.items():
        pid = holder.start(t, kind, program="sender")
        if pid is None:
            t.note(f"skip: {kind}: not to be had here")
            continue
        before = t.settled(pid)
        result = t.fsnap.run("dump", "-t", pid, "--json")
        t.expect_error(result, EXIT_REFUSED, "UNSUPPORTED", str(pid), "under way in descriptor", "(socket:[", word)
        t.expect(f"{kind}: what helps", True, "receive the message" in result.hint)
        t.expect_unharmed(pid, before, f"refusing {kind}")
        holder.expect_well(t, pid, f"refusing {kind}")
        holder.stop(pid)


trial.main(body)
