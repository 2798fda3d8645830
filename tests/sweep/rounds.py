#!/usr/bin/python3
"""One target, dumped over and over, in one way after the other, every eighth time killed and restored: it is unharmed, and
nothing grows - not its memory, its mappings and descriptors, not the store, not the processes and files of the machine.
FSNAP_SWEEP=full: ten thousand rounds; FSNAP_SWEEP_HOURS=24: as long as that (tools/soak). SIGINT: no more rounds; what was
seen until then is judged."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402
import victim  # noqa: E402

ROUNDS = 10_000 if sweep.FULL else 48
HOURS = float(os.environ.get("FSNAP_SWEEP_HOURS", "0"))
LONG = sweep.FULL or HOURS
KILLED, ASKED = 8, 50 if LONG else 8  # every so many rounds
TOLD = 60  # seconds from one line of progress to the next
SLACK = 512 << 10  # of the target's memory: its own doing
LIMIT = 280 if not LONG else 4 * 3600 + 3600 * HOURS
# Neither of these nor KILLED has a divisor in common with another: each way of dumping meets each of restoring.
DUMPS = ((), ("--live",), ("--compress", "lz4"), ("--encrypt", "key"), ("--no-live",))
RESTORES = ((), ("--memory", "stream", "--wait-resident"), ("--memory", "eager"))


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


def most(one, other):
    return {what: max(other[what], one.get(what, other[what])) for what in other}


def forget_output(t):
    """What each fsnap said is kept in a file; of a day's rounds that would be millions."""
    for name in os.listdir(t.fsnap.work):
        if name.endswith((".out", ".err")):
            os.unlink(os.path.join(t.fsnap.work, name))


def round_of(t, one, number):
    kill = number % KILLED == KILLED - 1
    how = [t.path(word) if word == "key" else word for word in DUMPS[number % len(DUMPS)]]
    t.dump(one.pid, "--name", "round", *how, *(["--kill"] if kill else []))
    if kill:
        one.forget_harm()
        t.restore("round", *RESTORES[number // KILLED % len(RESTORES)])
    t.fsnap.run("rm", "round")
    forget_output(t)


def grown(t, one, before, number):
    """Says what has; True if anything has."""
    good = True
    for what, (value, slack) in sizes(t, one).items():
        good &= t.expect_true(f"{what}: {before[what][0]}, and {value} after {number} rounds",
                              value <= before[what][0] + slack)
    return not good


def progress(t, one, number, began):
    seen = ", ".join(f"{what} {value}" for what, (value, _) in sizes(t, one).items())
    t.note(f"{number} rounds in {time.monotonic() - began:.0f} s: {seen}")


class Rounds:
    """Whether there is to be another one."""

    def __init__(self):
        self.began, self.asked_to_end, self.told = time.monotonic(), False, time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.end)

    def end(self, *_):
        self.asked_to_end = True

    def go_on(self, number):
        took = time.monotonic() - self.began
        if self.asked_to_end or (not LONG and took > 30):
            return False
        return took < 3600 * HOURS if HOURS else number < ROUNDS

    def to_tell(self):
        if not LONG or time.monotonic() - self.told < TOLD:
            return False
        self.told = time.monotonic()
        return True


def body(t):
    t.fsnap.name_store = False  # keygen has none
    t.expect("keygen", 0, t.fsnap.run("keygen", "--secret", t.path("key")).status)
    t.fsnap.name_store = True
    os.environ["FSNAP_KEY"] = t.path("key")
    one = victim.Victim(t)
    one.start()
    before = {}
    for number in range(len(DUMPS) * KILLED):  # until everything has its size; some of it comes and goes
        round_of(t, one, number)
        if number >= len(DUMPS) * KILLED / 2:
            before = most(before, sizes(t, one))
    one.settle()
    rounds, number = Rounds(), 0
    while rounds.go_on(number):
        round_of(t, one, number)
        number += 1
        if number % ASKED == 0 and not t.expect(f"after round {number}", [], one.complaints()):
            break
        if rounds.to_tell():
            progress(t, one, number, rounds.began)
            if grown(t, one, before, number):
                break
    grown(t, one, before, number)
    progress(t, one, number, rounds.began)


trial.main(body, LIMIT, stoppable=True)
