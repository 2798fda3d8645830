"""Starts refuse/programs/holder.c and sees that it is well."""

import os
import signal

import children
import trial


def start(t, kind, uid=None, program="holder"):
    """The PID, or None where the thing cannot be had here."""
    for name in ("ready", "answers"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    try:
        return t.start([os.path.join(t.helpers, program), kind], ready="ready", uid=uid,
                       name=f"holder.{kind}")
    except trial.Stop:
        children.reap()
        return None


def answers(t):
    return os.path.getsize(t.path("answers")) if os.path.exists(t.path("answers")) else 0


def expect_well(t, pid, what):
    """It lives, nobody traces or stops it, and it answers."""
    before = answers(t)
    children.reap()
    if not t.expect(f"status after {what}", None, children.statuses.get(pid)):
        return
    os.kill(pid, signal.SIGUSR1)
    if not t.until(f"the target answers after {what}", lambda: answers(t) == before + 1, 5):
        t.note(f"  its status is now {children.statuses.get(pid)}")


def stop(pid):
    for each in children.tree(pid):
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            pass
    children.wait(pid, 5)
