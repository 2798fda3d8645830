#!/usr/bin/python3
"""fsnap watch bounds the share of the time that the tree stands still, makes fewer images where that or their making
does not allow more, and says so; its priority is low while the tree runs; SIGTERM ends it like ^C; a tree that forks,
and one that executes another program, is watched on, and the last image is what it is then, also in a page of a
program's file that was its own only later."""

import glob
import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402


def forget(t, pattern):
    for path in glob.glob(t.path(pattern)):
        os.unlink(path)


def check(t, what, processes):
    """Each process of the tree compares its memory with what it should be."""
    forget(t, "check.*")
    os.kill(processes[0], signal.SIGUSR2)
    for pid in processes[1:]:
        os.kill(pid, signal.SIGUSR2)
    for pid in processes:
        path = t.until(f"{what}: process {pid} has checked", lambda: glob.glob(t.path(f"check.{pid}.*")))
        if path:
            with open(path[0], encoding="utf-8") as f:
                t.expect(f"{what}: memory of {pid}", "ok", f.read())


def comm_of(pid):
    with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
        return f.read().strip()


def end(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    children.wait_gone(pids, 10)


def gentle_nice():
    """What a watch's priority is while the tree runs: lower, if it can be raised again for a freeze."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return usual
    try:
        os.setpriority(os.PRIO_PROCESS, 0, usual - 1)
        os.setpriority(os.PRIO_PROCESS, 0, usual)
    except PermissionError:
        return usual
    return usual + 15 if usual + 15 <= 19 else usual


def bounded(t):
    pid = t.start(["/bin/sleep", "1000"])
    t.until("it is what it is to be", lambda: comm_of(pid) == "sleep")
    handle = t.fsnap.start("watch", "-t", pid, "--every", "1ms", "--max-share", "2%", "--name", "b", "--json")
    t.until("images of the bounded one", lambda: len(t.fsnap.lines(handle)) > 4, timeout=60)
    nice = gentle_nice()
    t.until(f"priority {nice} while the tree runs", lambda: os.getpriority(os.PRIO_PROCESS, handle[0]) == nice)
    os.kill(handle[0], signal.SIGTERM)
    result = t.fsnap.finish(handle)
    t.expect("told to end by SIGTERM", 0, result.status)
    *images, summary = t.fsnap.lines(handle)
    stopped = sum(x["frozen_us"] for x in images[:-1])
    t.expect_true(f"stopped for {stopped} of {summary['total_us']} us", stopped <= 0.02 * summary["total_us"])
    t.expect_true("moments were left out for that", summary["spared"] > 0)
    counted = sum(summary[key] for key in ("images", "late", "spared", "skipped"))
    t.expect_true("and counted", counted >= stopped / 0.02 / 1000 - len(images))  # of a millisecond each
    t.expect_true("processor time is told", summary["cpu_us"] > 0)

    handle = t.fsnap.start("watch", "-t", pid, "--every", "1ms", "--max-share", "1", "--name", "said")
    t.until("images of the talking one",
            lambda: len(glob.glob(os.path.join(t.fsnap.store, "images", "said-*"))) > 2, timeout=60)
    os.kill(handle[0], signal.SIGTERM)
    result = t.fsnap.finish(handle)
    t.expect("exit status", 0, result.status)
    t.expect_true("it says what is missing, and why",
                  re.search(r"left out: the tree would have stood still for more than 1 %", result.err))
    for share in ("0", "101%", "much", "-3", "5x"):
        t.expect_error(t.fsnap.run("watch", "-t", pid, "--max-share", share, "--json"), 2, "USAGE", "share")
    end([pid])


def forking(t, pid):
    """Two children come into being while it is watched, the second executes the program anew."""
    handle = t.fsnap.start("watch", "-t", pid, "--every", "20ms", "--keep", 4, "--name", "f", "--json")
    t.until("images of the forking one", lambda: len(t.fsnap.lines(handle)) > 2, timeout=60)
    for step in (1, 2, 3):
        os.kill(pid, signal.SIGUSR1)
        t.until(f"step {step}", lambda n=step: os.path.exists(t.path(f"step.{pid}.{n}")))
    t.until("all are there", lambda: len(children.tree(pid)) == 3)
    t.until("they are ready", lambda: all(glob.glob(t.path(f"step.{p}.*")) for p in children.tree(pid)))
    seen = len(t.fsnap.lines(handle))
    t.until("images of all of them", lambda: len(t.fsnap.lines(handle)) > seen + 2, timeout=60)
    pids = children.tree(pid)
    os.kill(handle[0], signal.SIGTERM)
    t.expect("exit status", 0, t.fsnap.finish(handle).status)
    summary = t.fsnap.lines(handle)[-1]
    check(t, "it goes on", pids)
    end(pids)
    t.restore(summary["last"])
    t.expect("processes of the last image", sorted(pids), sorted(children.tree(pid)))
    check(t, "restored", pids)
    end(pids)


def first_mapping(pid):
    """Read-only, of the program's file; and the first bytes there."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        words = f.readline().split()
    at = int(words[0].split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as f:
        f.seek(at)
        return words[1], at, f.read(16)


def poke(pid, at, data):
    """As debuggers do, past the protection: from then on the page is the process' own."""
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as f:
        f.seek(at)
        f.write(data)


def executing(t):
    pid = t.start(["/bin/sh", "-c", "read x < fifo; exec sleep 1000"])
    t.until("it is the shell", lambda: comm_of(pid) == "sh")
    handle = t.fsnap.start("watch", "-t", pid, "--every", "20ms", "--name", "e", "--json")
    t.until("images of the shell", lambda: len(t.fsnap.lines(handle)) > 2, timeout=60)
    with open(t.path("fifo"), "w", encoding="utf-8") as f:
        f.write("go\n")
    comm = f"/proc/{pid}/comm"
    t.until("it executes another program", lambda: open(comm, encoding="utf-8").read() == "sleep\n")
    seen = len(t.fsnap.lines(handle))
    t.until("images of that", lambda: len(t.fsnap.lines(handle)) > seen + 2, timeout=60)
    protection, at, before = first_mapping(pid)
    t.expect("its first mapping", ("r--p", b"\x7fELF"), (protection, before[:4]))
    poke(pid, at + 8, b"poked")
    seen = len(t.fsnap.lines(handle))
    t.until("images with what was poked", lambda: len(t.fsnap.lines(handle)) > seen + 2, timeout=60)
    end([pid])
    result = t.fsnap.finish(handle)
    t.expect("exit status", 0, result.status)
    summary = t.fsnap.lines(handle)[-1]
    t.expect("it has ended", True, summary["ended"])
    t.restore(summary["last"])
    t.expect("restored", "sleep\n", open(comm, encoding="utf-8").read())
    t.expect("what was poked", b"poked", first_mapping(pid)[2][8:13])
    end([pid])


def body(t):
    t.fsnap.name_store = False
    os.mkfifo(t.path("fifo"))
    pid = t.start([os.path.join(t.helpers, "changing")])
    t.until("it is ready", lambda: os.path.exists(t.path(f"step.{pid}.0")))
    if t.control:
        check(t, "alone", [pid])
        return
    bounded(t)
    forking(t, pid)
    executing(t)
    t.expect("all images are whole", 0, t.fsnap.run("verify", "--all").status)


trial.main(body)
