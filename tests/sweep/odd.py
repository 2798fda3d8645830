#!/usr/bin/python3
"""Programs in unusual states: each is either saved and restored, and is what it was, or refused with a
reason; in no case is it harmed. Then fsnap against itself: one target saved twice at the same time,
two dumps into one store, a dump while a restore is at work."""

import os
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_OK, EXIT_REFUSED, EXIT_TARGET  # noqa: E402

ODDS = ("threads200 fds1000 in_vfork in_ptrace_stop stopped_child heap_stack tiny_stack on_altstack "
        "edge_stack zero_stack no_vdso no_fds no_cwd full_pipe nofile8 nofile0 nofile_full small_as as_zero data_zero "
        "stack_small fsize_small nproc0 unprivileged_nproc user_without_dump filtered chrooted deep chain "
        "none_tib reserve_tib growsdown maps10000 own_text_gone leader_gone").split()
SILENT = ("edge_stack", "zero_stack")
MAY_REFUSE = {"in_vfork": "vfork", "in_ptrace_stop": "traced",
              "edge_stack": "stack", "zero_stack": "stack", "no_cwd": "no name", "deep": "cwd",
              "nofile0": "descriptors", "nofile_full": "descriptors", "as_zero": "memory"}
ONLY = os.environ.get("FSNAP_ODD", "").split()


def answers(t):
    try:
        with open(t.path("answers")) as f:
            return f.read()
    except OSError:
        return ""


def expect_answer(t, pid, what, when):
    if what in SILENT:
        t.expect(f"{what}: alive {when}", True, os.path.exists(f"/proc/{pid}"))
        return
    before = answers(t)
    try:
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        t.fail(f"{what}: it is gone {when}")
        return
    t.until(f"{what}: answers {when}", lambda: len(answers(t)) > len(before), 5)
    t.expect(f"{what}: answer {when}", ".", answers(t)[len(before):])


def end_all(t):
    for _ in range(50):
        here = [int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1]
        for pid in here:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not children.wait_gone(here, 0.2):
            break
    children.statuses.clear()


def begin(t, what):
    for name in ("ready", "answers", "odd-copy", "many"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    binary = t.path("odd-copy")
    shutil.copy(os.path.join(t.helpers, "odd"), binary)
    try:
        return t.start([binary, what], ready="ready", name=f"odd.{what}")
    except trial.Stop:
        t.note(f"{what}: cannot be had here")
        return None


def refused(t, what, result):
    if what in MAY_REFUSE and result.status in (EXIT_REFUSED, EXIT_TARGET):
        t.expect(f"{what}: the reason is told", True, MAY_REFUSE[what] in result.message)
        t.note(f"{what}: refused: {result.message}")
        return
    t.fail(f"{what}: dump failed\n{result}")


def without_mask(look):
    return lambda pid: {key: value for key, value in look(pid).items() if key[1] != f"task {pid} SigBlk"}


def one(t, what):
    pid = begin(t, what)
    if pid is None:
        return
    time.sleep(0.01)
    before = t.settled(pid)
    result = t.fsnap.run("dump", "-t", pid, "--json", timeout=30)
    saved = result.status == EXIT_OK
    if not saved:
        refused(t, what, result)
    children.reap()
    if not t.expect(f"{what}: status after the dump", None, children.statuses.get(pid)):
        return
    t.expect_unharmed(pid, before, f"dumping {what}")
    if what != "in_vfork":
        expect_answer(t, pid, what, "after the dump")
    if not saved:
        return
    before = t.settled(pid)
    report = t.dump(pid, "--kill")
    again = t.fsnap.run("restore", report["image"], "-d", "--json", timeout=30)
    if not t.expect(f"{what}: restored", EXIT_OK, again.status):
        t.note(str(again))
        return
    if what == "leader_gone":  # engine/state/README.md: the mask of a thread that is dead
        before.pop((pid, f"task {pid} SigBlk"))
        t.look = without_mask(t.look)
    t.expect_unharmed(pid, before, f"restoring {what}")
    expect_answer(t, pid, what, "after the restore")


def at_once(t):
    """fsnap against itself."""
    for name in ("ready", "answers"):
        if os.path.exists(t.path(name)):
            os.unlink(t.path(name))
    pid = begin(t, "threads200")
    before = t.settled(pid)
    for i in range(6):
        handles = [t.fsnap.start("dump", "-t", pid, "--json", "--name", f"same{i}.{j}") for j in range(3)]
        results = [t.fsnap.finish(h, 30) for h in handles]
        for result in results:
            t.expect(f"dumps of one target at once: status {result.message}", True,
                     result.status in (EXIT_OK, EXIT_TARGET))
        t.expect("one of them at least succeeds", True, any(r.status == EXIT_OK for r in results))
        t.expect_unharmed(pid, before, "three dumps at once")
        expect_answer(t, pid, "three dumps at once", "afterwards")
    other = t.start(["/usr/bin/sleep", "1000"])
    image = t.dump(other, "--kill", "--name", "other")["image"]
    for i in range(4):
        handles = [t.fsnap.start("dump", "-t", pid, "--json", "--name", f"mix{i}"),
                   t.fsnap.start("restore", image, "-d", "--json"),
                   t.fsnap.start("dump", "-t", pid, "--json", "--name", f"mix{i}")]
        results = [t.fsnap.finish(h, 30) for h in handles]
        t.expect("a restore beside dumps", EXIT_OK, results[1].status)
        names = [x["name"] for x in t.fsnap.run("list", "--json").json["images"]]
        t.expect("images of one name", 1, names.count(f"mix{i}"))
        os.kill(other, signal.SIGKILL)
        children.wait_gone([other], 5)
        expect_answer(t, pid, "dumps beside a restore", "afterwards")
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all").status)


def body(t):
    os.chmod(t.work, 0o777)
    for what in ONLY or ODDS:
        try:
            one(t, what)
        except trial.Stop as e:
            t.fail(f"{what}: {e}")
        end_all(t)
    if not ONLY:
        at_once(t)


trial.main(body)
