#!/usr/bin/python3
"""One target, dumped over and over, every eighth time killed and restored: it is unharmed, and nothing grows - not
its memory, its mappings and descriptors, not the store, not the processes and files of the machine.
FSNAP_SWEEP=full: ten thousand rounds; FSNAP_SWEEP_HOURS=24: as long as that."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

ROUNDS = 10_000 if sweep.FULL else 48
HOURS = float(os.environ.get("FSNAP_SWEEP_HOURS", "0"))
KILLED, ASKED = 8, 50 if sweep.FULL or HOURS else 8  # every so many rounds
SLACK = 512 << 10  # of the target's memory: its own doing
LIMIT = 280 if not (sweep.FULL or HOURS) else 7200 + 3600 * HOURS


def resident(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) << 10 for line in f if line.startswith(("Private", "Swap:")))


def count(path):
    return len(os.listdir(path))


def count_lines(path):
    with open(path, encoding="ascii") as f:
        return len(f.readlines())


def sizes(t, one):
    """What must not grow, with how much it may waver."""
    pid, store = one.pid, t.fsnap.store
    bytes_of = sum(os.stat(os.path.join(where, name)).st_blocks * 512
                   for where, _, names in os.walk(store) for name in names)
    seen = {"its memory": (resident(pid), SLACK), "its mappings": (count_lines(f"/proc/{pid}/maps"), 0),
            "its descriptors": (count(f"/proc/{pid}/fd"), 0), "the store": (bytes_of, 4 << 20),
            "files of the store": (sum(len(names) for _, _, names in os.walk(store)), 1),
            "files in /dev/shm": (count("/dev/shm"), 0),
            "processes": (len([x for x in os.listdir("/proc") if x.isdigit()]), 1),
            "System V segments": (count_lines("/proc/sysvipc/shm"), 0)}
    return seen


def round_of(t, one, number):
    kill = number % KILLED == KILLED - 1
    t.dump(one.pid, "--name", "round", *(["--kill"] if kill else []))
    if kill:
        one.forget_harm()
        t.restore("round")
    t.fsnap.run("rm", "round")


def body(t):
    one = victim.Victim(t)
    one.start()
    for number in range(2 * KILLED):  # until everything has its size
        round_of(t, one, number)
    one.settle()
    before, began, number = sizes(t, one), time.monotonic(), 0
    while time.monotonic() - began < 3600 * HOURS if HOURS else number < ROUNDS:
        round_of(t, one, number)
        if number % ASKED == ASKED - 1 and not t.expect(f"after round {number}", [], one.complaints()):
            break
        number += 1
        if not (sweep.FULL or HOURS) and time.monotonic() - began > 30:
            break
    for what, (value, slack) in sizes(t, one).items():
        t.expect_true(f"{what}: {before[what][0]}, and {value} after {number} rounds", value <= before[what][0] + slack)
    t.note(f"{number} rounds in {time.monotonic() - began:.0f} s")


trial.main(body, LIMIT)
