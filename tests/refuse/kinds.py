#!/usr/bin/python3
"""For each thing that is not saved yet: a dump is refused (3, UNSUPPORTED), the message names the
process and the thing, there is a hint, with --json and without; the target goes on untouched; a
dump with --kill kills nobody; no image appears, and the one that was there is still good."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_REFUSED  # noqa: E402

# What the message must name, in the words a user would search for.
KINDS = {
    "io_uring": "requests under way",
    "userfaultfd_forks": "follows forks", "userfaultfd_two": "several processes hold",
    "userfaultfd_outside": "another process", "netlink": "long answer",
    "netlink_answer": "an answer that is not read yet", "connector": "connector", "packet": "ring",
    "vsock": "vsock", "alg": "cryptography", "perf": "perf",
    "mptcp": "Multipath TCP", "tcp_md5": "MD5", "tcp_urgent": "urgent",
    "pidfd": "pidfd", "bpf": "BPF", "fanotify_events": "fanotify", "kmsg": "kernel log", "aio": "requests are under way",
    "namespace": "namespace", "own_namespace": "namespace",
    "pipe_outside": "outside", "secret": "secret", "shared_process": "shares its memory",
    "lease_deleted": "lease", "lease_breaking": "being broken", "dnotify": "F_NOTIFY",
    "proc_stranger": "outside", "proc_ended": "ended",
}


def one(t, kind, word):
    pid = holder.start(t, kind)
    if pid is None:
        t.note(f"skip: {kind}: not to be had here")
        return
    before = t.settled(pid)
    for options in (["--json"], [], ["--json", "--kill"]):
        result = t.fsnap.run("dump", "-t", pid, *options)
        t.expect_error(result, EXIT_REFUSED, "UNSUPPORTED", str(pid), word)
        t.expect_unharmed(pid, before, f"refusing {kind}")
        holder.expect_well(t, pid, f"refusing {kind}")
    t.expect(f"{kind}: images", 1, len(t.fsnap.run("list", "--json").json["images"]))
    holder.stop(pid)


def noted(t):
    """What is lost as it is when a queue overflows is told, and refuses nothing."""
    pid = holder.start(t, "netlink_notices")
    report = t.dump(pid, "--name", "noted")
    t.expect("the note", ["notices not read yet from netlink sockets are not in the image"], report.get("notes"))
    holder.expect_well(t, pid, "a dump with a note")
    t.fsnap.run("rm", "noted")
    holder.stop(pid)


def body(t):
    pid = holder.start(t, "nothing")
    earlier = t.dump(pid)["image"]
    holder.expect_well(t, pid, "a dump")
    holder.stop(pid)
    for kind, word in KINDS.items():
        one(t, kind, word)
    noted(t)
    t.expect("the earlier image verifies", 0, t.fsnap.run("verify", earlier).status)


trial.main(body)
