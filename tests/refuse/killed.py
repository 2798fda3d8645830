#!/usr/bin/python3
"""fsnap is killed at any moment of a dump: the target, several processes with several threads, goes
on as if nothing had happened, no half image is seen, the next dump works. Killed at any moment of a
restore: nothing of the tree is left, or all of it."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import holder  # noqa: E402
import outside  # noqa: E402
import trial  # noqa: E402

PROGRAM = """
import os, signal, threading, time
pair = os.pipe()
memory = bytearray(os.urandom(1 << 20)) * 16
stop = threading.Event()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # in all threads, as sigwait(3) wants it
for _ in range(3):
    threading.Thread(target=stop.wait, daemon=True).start()
if os.fork() == 0:
    while True:
        time.sleep(1000)
open("ready", "w").close()
while True:
    signal.sigwait([signal.SIGUSR1])
    with open("answers", "a") as f:
        f.write(".")
"""
TIMES = 60


def kill_midway(t, longest, *words):
    handle = t.fsnap.start(*words)
    time.sleep(random.uniform(0, longest))
    try:
        os.kill(handle[0], signal.SIGKILL)
    except ProcessLookupError:
        pass
    return t.fsnap.finish(handle).status


def dumps(t, pid):
    before = t.settled(pid)
    began = time.monotonic()
    image = t.dump(pid, "--name", "calm")["image"]
    longest = (time.monotonic() - began) * 1.1
    interrupted = leaks = 0
    for i in range(TIMES):
        interrupted += kill_midway(t, longest, "dump", "-t", pid, "--name", f"try{i}") == -9
        found = outside.lasting_differences(before, lambda: t.look(pid), 7)
        if outside.are_unused(found):
            before, found, leaks = t.look(pid), [], leaks + 1
        if not t.expect(f"differences after death {i}", [], found[:6]):
            break
        holder.expect_well(t, pid, f"death {i}")
    t.note(f"{interrupted} of {TIMES} dumps were interrupted; {leaks} left control memory (W2)")
    listed = t.fsnap.run("list", "--json").json["images"]
    t.expect("what is listed besides whole images", [],
             [x for x in listed if x["name"] not in (image, "again") and x["name"][:3] != "try"])
    t.expect("all that are listed verify", 0, t.fsnap.run("verify", "--all").status)


def restores(t, pid):
    pids = children.tree(pid)
    image = t.dump(pid, "--name", "again")["image"]
    holder.stop(pid)
    t.expect("gone", [], children.wait_gone(pids, 5))
    began = time.monotonic()
    t.restore(image)
    longest = (time.monotonic() - began) * 1.1
    outcome = {"nothing": 0, "all": 0}
    for i in range(TIMES // 2):
        holder.stop(pid)
        children.wait_gone(pids, 5)
        kill_midway(t, longest, "restore", image, "-d")
        left = children.wait_gone(pids, 0.3)
        outcome["all" if left else "nothing"] += 1
        if left:
            failed = t.failures
            holder.expect_well(t, pid, f"a restore whose fsnap was killed ({i})")
            if t.failures > failed:
                for each in left:
                    state = outside.fields(f"/proc/{each}/status", ("Name", "State", "TracerPid"))
                    call = outside.read(f"/proc/{each}/syscall").strip()
                    t.note(f"  left: {each}: {state}, system call {call}")
                for each in left:
                    os.kill(each, signal.SIGKILL)
    t.note(f"restores that were killed left: {outcome}")


def body(t):
    random.seed(1)
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM], ready="ready")
    pids = children.tree(pid)
    restores(t, pid)
    holder.stop(pid)
    children.wait_gone(pids, 5)
    t.restore("again")
    dumps(t, pid)


trial.main(body)
