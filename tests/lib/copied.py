"""Starts cli/programs/copied.c, with a store in memory: large processes are copied from inside only into such."""

import os
import shutil
import tempfile

import children


class Copied:
    def __init__(self, t):
        self.t = t
        self.store = t.fsnap.store = os.path.join(tempfile.mkdtemp(prefix="fsnap-copied.", dir="/dev/shm"), "store")

    def start(self, mib, *words, **how):
        for name in ("ready", "ask", "answer"):
            if os.path.exists(self.t.path(name)):
                os.unlink(self.t.path(name))
        self.pid = self.t.start([os.path.join(self.t.helpers, "copied"), self.t.work, str(mib), *words],
                                ready="ready", name="copied", **how)
        return self.pid

    def answer(self):
        """What it says of itself."""
        path = self.t.path("answer")
        if os.path.exists(path):
            os.unlink(path)
        with open(self.t.path("ask"), "w", encoding="utf-8"):
            pass
        self.t.until("it answers", lambda: os.path.exists(path) or self.pid in children.statuses, 20)
        if not os.path.exists(path):
            return f"it ended with {children.statuses.get(self.pid)}"
        with open(path, encoding="utf-8") as f:
            return f.read()

    def end(self):
        os.kill(self.pid, 9)
        children.wait_gone([self.pid], 5)
        children.statuses.pop(self.pid, None)

    def close(self):
        shutil.rmtree(os.path.dirname(self.store), ignore_errors=True)
