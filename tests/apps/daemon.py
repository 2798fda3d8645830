#!/usr/bin/python3
"""Daemons: the leader of their session has ended. They come back in the same session and group; but if
other members of it are still there, in those of the restore, and a note says so."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402


def belongs(pid):
    return os.getsid(pid), os.getpgid(pid)


def start(t, script):
    """Runs a script that leads a session, writes PIDs into a file, and ends; gives the PIDs."""
    if os.path.exists(t.path("pids")):
        os.unlink(t.path("pids"))
    leader = t.start(["/bin/bash", "-c", script + "\necho done >> pids"])
    t.expect("exit status of the leader", 0, children.wait(leader, 20))
    with open(t.path("pids")) as f:
        return leader, [int(line) for line in f if line.strip().isdigit()]


def alone(t):
    leader, (pid,) = start(t, "sleep 1000 & echo $! >> pids")
    before = belongs(pid)
    t.expect("session of the daemon", leader, before[0])
    for _ in range(2):
        t.round_trip(pid)
        t.expect("session and group", before, belongs(pid))
    os.kill(pid, 9)


def family(t):
    """Its group has lost its leader, too, and is not the session's."""
    leader, pids = start(t, """
        set -m
        true | bash -c 'sleep 1000 & echo $$ $! | tr " " "\\n" >> pids; wait' &
        until [ "$(wc -l < pids)" = 2 ]; do sleep 0.01; done 2> /dev/null
        disown -a""")
    root = pids[0]
    before = [belongs(pid) for pid in pids]
    t.until("the leader of its group ends", lambda: not os.path.exists(f"/proc/{before[0][1]}"))
    t.expect("session of the daemon", leader, before[0][0])
    t.expect_true("its group is another", before[0][1] not in (leader, root))
    t.round_trip(root)
    t.expect("sessions and groups", before, [belongs(pid) for pid in pids])
    for pid in pids:
        os.kill(pid, 9)


def not_alone(t):
    leader, (one, two) = start(t, "sleep 1000 & echo $! >> pids; sleep 1000 & echo $! >> pids")
    _, again = t.round_trip(one)
    t.expect_true("a note says that it is in another session",
                  any("session" in note for note in again.get("notes", [])))
    t.expect_true("it is in another session", os.getsid(one) != leader)
    t.expect("the other is where it was", leader, os.getsid(two))
    for pid in (one, two):
        os.kill(pid, 9)


def body(t):
    alone(t)
    family(t)
    if not t.control:
        not_alone(t)


trial.main(body)
