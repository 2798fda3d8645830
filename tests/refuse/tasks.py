#!/usr/bin/python3
"""Tasks that cannot be saved: such as share a descriptor table or a directory across processes or not
with their own process, such as their own tree traces, a parent that waits in vfork(2) for long. The message
names the process and the reason, there is a hint, the tree goes on untouched."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_REFUSED, EXIT_TARGET  # noqa: E402

KINDS = {
    "shared_files": (EXIT_REFUSED, "UNSUPPORTED", "shares its descriptor table"),
    "shared_directory": (EXIT_REFUSED, "UNSUPPORTED", "shares its working directory"),
    "thread_files": (EXIT_REFUSED, "UNSUPPORTED", "descriptor table of its own"),
    "thread_directory": (EXIT_REFUSED, "UNSUPPORTED", "working directory and umask of its own"),
    "traced_inside": (EXIT_TARGET, "TRACED", "is being traced by process"),
    "stuck_vfork": (EXIT_TARGET, "TARGET_BUSY", "vfork"),
}


def body(t):
    for kind, (status, code, words) in KINDS.items():
        pid = holder.start(t, kind, program="odd_tasks")
        before = t.settled(pid)
        for options in (["--json"], ["--json", "--kill"]):
            result = t.fsnap.run("dump", "-t", pid, *options)
            t.expect_error(result, status, code, words)
            t.expect_true(f"{kind}: the message names the process", str(pid) in result.message or
                          str(pid + 1) in result.message)
            t.expect_unharmed(pid, before, f"refusing {kind}")
            holder.expect_well(t, pid, f"refusing {kind}")
        t.expect(f"{kind}: images", [], t.fsnap.run("list", "--json").json["images"])
        holder.stop(pid)


trial.main(body)
