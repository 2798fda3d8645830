"""Starts sweep/programs/victim.c, which notices whatever is done to it, and asks how it is."""

import os
import re
import struct
import time

import children
import outside

NAMES = ("sleeper reader writer ping pong computer filer signalled sender talker child waiter "
         "poller timed").split()
# Signals come and go; the position in a file that is being written moves; a counter counts.
MOVES = ["^task .* (PPid|SigPnd|ShdPnd)", "/(file|harm) ", "eventfd-count"]
INTERRUPTED = 0.1  # of all moments in which fsnap is killed: what W4 may be, of stops that are counted by calls
STILL = 9.0  # seconds; the agent waits 5 s for an engine that died before its first order


class Victim:
    def __init__(self, t, pace=1):
        self.t, self.pace = t, pace
        self.harm_seen = 0
        self.pid = None
        self.before = {}

    def start(self):
        for name in ("ready", "end"):
            if os.path.exists(self.t.path(name)):
                os.unlink(self.t.path(name))
        self.harm_seen = 0
        self.pid = self.t.start([os.path.join(self.t.helpers, "victim"), str(self.pace)], ready="ready",
                                name="victim")
        self.stuck()  # all threads are at work
        self.settle()
        return self.pid

    def settle(self):
        """What it looks like now is what it is expected to look like."""
        self.before = outside.settled(self.look)

    def look(self):
        return outside.look(children.tree(self.pid), MOVES)

    def progress(self):
        with open(self.t.path("progress"), "rb") as f:
            return struct.unpack(f"{len(NAMES)}Q", f.read(8 * len(NAMES)))

    def harm(self):
        """Lines it has written since last asked."""
        with open(self.t.path("harm"), encoding="utf-8") as f:
            lines = f.read().splitlines()
        new, self.harm_seen = lines[self.harm_seen:], len(lines)
        return new

    def forget_harm(self):
        """A restored one goes on writing where it was when it was saved."""
        os.truncate(self.t.path("harm"), 0)
        self.harm_seen = 0

    def stuck(self, patience=STILL):
        """(who has not gone on within `patience`, how long the last of them took)."""
        began, first = time.monotonic(), self.progress()
        while True:
            left = [n for n, a, b in zip(NAMES, first, self.progress()) if b < a + 2]
            took = time.monotonic() - began
            children.reap()
            if not left or took > patience or self.pid in children.statuses:
                return left, took
            time.sleep(0.003)

    def complaints(self):
        """All that is wrong with it: [] is what one hopes for."""
        children.reap()
        left, _took = self.stuck()
        if self.pid in children.statuses:
            return [f"it ended with {children.statuses[self.pid]}"] + self.harm()
        found = [f"stands still: {name}" for name in left]
        found += outside.lasting_differences(self.before, self.look, 0.3)[:12]
        for pid in children.tree(self.pid):
            for tid in os.listdir(f"/proc/{pid}/task"):
                state = outside.fields(f"/proc/{pid}/task/{tid}/status", ("State", "TracerPid"))
                if state.get("TracerPid") != "0" or state.get("State", "?")[0] in "tT":
                    found.append(f"task {tid}: {state}")
        return found + self.harm()

    def was_interrupted(self, complaints, told):
        """The kernel ends such calls when a thread stops, and has fsnap set them going again: window W4."""
        return bool(complaints) and all("epoll_wait" in x for x in complaints) and \
            re.search("call (101|61|247) ", told) is not None

    def left_behind(self, complaints):
        return outside.are_unused(complaints)

    def taken_out(self, complaints):
        """What a killed dump had left behind, and nothing else, is no longer there: the next dump sees to that."""
        return outside.are_unused(complaints) and all("seen 'nothing'" in x for x in complaints)

    def stop(self):
        pids = children.tree(self.pid)
        for pid in pids:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        self.t.expect("gone", [], children.wait_gone(pids, 5))
        children.statuses.pop(self.pid, None)
