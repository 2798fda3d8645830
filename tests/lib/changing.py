"""A tree whose memory changes in every way, step by step, and that knows what it should hold (cli/programs/changing.c)."""

import os
import signal

import children


class Tree:
    """The program, its children, and how often each was asked."""

    def __init__(self, t):
        self.t = t
        self.pid = t.start([os.path.join(t.helpers, "changing")])
        self.steps = 0
        t.until("it is ready", lambda: os.path.exists(t.path(f"step.{self.pid}.0")))

    def step(self):
        """Everybody takes one. A child begins with its parent's count, or, executed anew, with none."""
        for name in os.listdir(self.t.work):
            if name.startswith("step."):
                os.unlink(self.t.path(name))
        pids = children.tree(self.pid)
        for pid in pids:
            os.kill(pid, signal.SIGUSR1)
        self.steps += 1
        born = self.steps in (2, 3)
        self.t.until("all have stepped", lambda: sum(
            x.startswith("step.") for x in os.listdir(self.t.work)) >= len(pids) + born)

    def check(self, what):
        pids = children.tree(self.pid)
        for pid in pids:
            for name in os.listdir(self.t.work):
                if name.startswith(f"check.{pid}."):
                    os.unlink(self.t.path(name))
        for pid in pids:
            os.kill(pid, signal.SIGUSR2)

        def said():
            names = [x for x in os.listdir(self.t.work) if x.startswith("check.")]
            return len(names) >= len(pids) and {x: open(self.t.path(x)).read() for x in names}
        found = self.t.until(f"{what}: all have checked", said) or {}
        self.t.expect(f"{what}: memory", [], [f"{x}: {text}" for x, text in found.items() if text != "ok"])

    def end(self):
        pids = children.tree(self.pid)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        children.wait_gone(pids, 10)
