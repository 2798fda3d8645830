"""The frame of drivers in refuse/ and apps/: a sandbox, a work directory, expectations.

    import trial
    def body(t):
        pid = t.start(["/usr/bin/sleep", "1000"])
        image = t.dump(pid, "--kill")["image"]
        t.restore(image)
    trial.main(body)
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback

import children
import outside
import sandbox
from fsnap import Fsnap

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/",
               "PYTHONDONTWRITEBYTECODE": "1"}


class Stop(Exception):
    """The trial cannot go on; what it found so far stands."""


class Trial:
    def __init__(self, options, work):
        self.work, self.build = work, options.build
        self.helpers = os.path.join(options.build, "tests")
        self.fsnap = Fsnap(options.fsnap, os.path.join(work, "fsnap"))
        self.control = options.control
        self.failures = 0
        self.checks = 0
        os.mkdir(self.fsnap.work)

    # --- expectations ---

    def fail(self, text):
        self.failures += 1
        print(f"FAIL {text}", flush=True)

    def expect(self, what, expected, seen):
        self.checks += 1
        if expected != seen:
            self.fail(f"{what}: expected {expected!r}, seen {seen!r}")
        return expected == seen

    def expect_true(self, what, seen):
        self.checks += 1
        if not seen:
            self.fail(f"{what}: expected, not seen")
        return bool(seen)

    def note(self, text):
        print(text, flush=True)

    # --- processes ---

    def path(self, name):
        return os.path.join(self.work, name)

    def start(self, argv, *, ready=None, name="target", **how):
        """Starts a target in a session of its own; waits until the file `ready` exists."""
        how.setdefault("env", ENVIRONMENT)
        pid = children.spawn(argv, out=self.path(f"{name}.out"), cwd=self.work, session=True, **how)
        if ready and not children.wait_file(self.path(ready), pid, 20):
            said = open(self.path(f"{name}.out"), errors="replace").read()
            raise Stop(f"{argv[0]} did not get ready: {said[-1000:]}")
        return pid

    def until(self, what, seen, timeout=15):
        """Waits until seen() is true; a failure if it does not become so."""
        deadline = time.monotonic() + timeout * children.PATIENCE
        while True:
            children.reap()
            try:
                value = seen()
            except OSError:
                value = None
            if value:
                self.checks += 1
                return value
            if time.monotonic() > deadline:
                self.fail(f"{what}: not within {timeout} s")
                return None
            time.sleep(0.01)

    # --- fsnap ---

    def dump(self, pid, *more, timeout=60):
        pids = children.tree(pid)
        if self.control:
            return {"image": str(pid), "processes": len(pids), "bytes": 0, "frozen_us": 0,
                    "total_us": 0}
        result = self.fsnap.run("dump", "-t", pid, "--json", *more, timeout=timeout)
        if result.status != 0 or not isinstance(result.json, dict):
            raise Stop(f"dump failed\n{result}")
        if "--kill" in more and (left := children.wait_gone(pids, 5)):
            raise Stop(f"dump --kill left {left}")
        children.statuses.pop(pid, None)
        return result.json

    def restore(self, image, *more, timeout=60):
        if self.control:
            return {"pid": int(image), "total_us": 0}
        result = self.fsnap.run("restore", image, "-d", "--json", *more, timeout=timeout)
        if result.status != 0 or not isinstance(result.json, dict):
            raise Stop(f"restore failed\n{result}")
        return result.json

    def round_trip(self, pid, *more):
        """Dumps and kills, restores; the same PID again."""
        report = self.dump(pid, "--kill", *more)
        again = self.restore(report["image"])
        self.expect("PID after the restore", pid, again["pid"])
        return report, again

    def expect_error(self, result, status, code, *words, hint=True):
        """An error as a user wants it: exit status, stable code, what and who, what to do."""
        label = " ".join(w for w in result.argv[1:] if w not in ("--store", self.fsnap.store))
        good = self.expect(f"{label}: exit status", status, result.status)
        if "--json" in result.argv:
            codes = code if isinstance(code, tuple) else (code,)
            good &= self.expect(f"{label}: code is one of {codes}", True, result.code in codes)
        elif code:
            good &= self.expect(f"{label}: the message is fsnap's", True,
                                result.err.startswith("fsnap: "))
        for word in words:
            good &= self.expect(f"{label}: the message names {word!r}", True,
                                str(word).lower() in result.message.lower())
        if hint:
            good &= self.expect(f"{label}: there is a hint", True, bool(result.hint))
        if not good:
            print(result, end="", flush=True)
        return good

    # --- unharmed ---

    def settled(self, pid):
        return outside.settled(lambda: self.look(pid), children.tree(pid))

    def look(self, pid):
        return outside.look(children.tree(pid), ["^task .* PPid"])

    def expect_unharmed(self, pid, before, what):
        found = outside.lasting_differences(before, lambda: self.look(pid))
        self.expect(f"differences after {what}", [], found[:10])


TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(body, timeout=280, stoppable=False):
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.environ.get("FSNAP_BUILD", "build"))
    parser.add_argument("--fsnap", help="the command (default: BUILD/fsnap)")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--control", action="store_true",
                        help="no fsnap at all: shows that the driver itself is honest")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    options.fsnap = os.path.abspath(options.fsnap or os.path.join(options.build, "fsnap"))
    base = os.path.join(tempfile.gettempdir(), "fsnap-tests")
    os.makedirs(base, 0o755, exist_ok=True)
    name = os.path.basename(sys.argv[0]).removesuffix(".py")
    work = tempfile.mkdtemp(prefix=f"{name}.", dir=base)
    os.chmod(work, 0o755)

    def run():
        sandbox.let_others_reach(options.build, TESTS)
        t = Trial(options, work)
        try:
            body(t)
        except Stop as e:
            t.fail(str(e))
        except Exception:
            t.fail(traceback.format_exc())
        print(f"{t.checks} checks, {t.failures} failed", flush=True)
        return 1 if t.failures or not t.checks else 0

    status = sandbox.run(run, timeout, stoppable)
    if status in (0, sandbox.SKIP) and not options.keep:
        shutil.rmtree(work, ignore_errors=True)
    else:
        print(f"kept: {work}")
    sys.exit(status)
