#!/usr/bin/python3
"""fsnap inspect: a running process and its image show the same threads, system calls and stacks,
under the names their libraries give them; what was looked at goes on undisturbed."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

PROGRAM = """
import threading, time, os
def lie():
    while True:
        time.sleep(1000)
def wait():
    os.read(read_end, 1)
read_end, write_end = os.pipe()
threads = [threading.Thread(target=lie), threading.Thread(target=wait)]
for thread in threads:
    thread.start()
if os.fork() == 0:
    time.sleep(1000)
time.sleep(0.2)
open("ready", "w").close()
os.wait()
"""


def threads_of(document):
    return {thread["tid"]: thread for process in document["processes"]
            for thread in process["threads"]}


def where(thread):
    return [(frame["address"], frame["symbol"], frame["file"]) for frame in thread["stack"]]


def inspect(t, *words):
    result = t.fsnap.run("inspect", *words, "--json")
    if not t.expect(f"inspect {words}: exit status", 0, result.status):
        raise trial.Stop(str(result))
    return result.json


def compare(t, running, image):
    t.expect("PIDs", [p["pid"] for p in running["processes"]], [p["pid"] for p in image["processes"]])
    for seen, kept in zip(running["processes"], image["processes"]):
        for member in ("comm", "exe", "cwd", "pgid", "sid"):
            t.expect(f"process {seen['pid']}: {member}", seen[member], kept[member])
        t.expect(f"process {seen['pid']}: descriptors", [(d["fd"], d["label"]) for d in seen["descriptors"]],
                 [(d["fd"], d["label"]) for d in kept["descriptors"]])
    seen, kept = threads_of(running), threads_of(image)
    t.expect("threads", sorted(seen), sorted(kept))
    for tid in set(seen) & set(kept):
        t.expect(f"thread {tid}: stack", where(seen[tid]), where(kept[tid]))
        t.expect(f"thread {tid}: system call", seen[tid]["syscall"]["name"],
                 kept[tid]["syscall"]["name"])
        t.expect_true(f"thread {tid}: instruction", kept[tid]["instruction"])


def names(t, image):
    calls = {thread["syscall"]["name"] for thread in threads_of(image).values()}
    t.expect_true(f"system calls {calls}: read, wait4 and a sleep",
                  {"read", "wait4"} < calls and calls & {"clock_nanosleep", "select", "pselect6"})
    for tid, thread in threads_of(image).items():
        symbols = [frame["symbol"] for frame in thread["stack"]]
        t.expect_true(f"thread {tid}: innermost frame has a name ({symbols[:3]})", symbols[0])
        t.expect_true(f"thread {tid}: more than the innermost frame", len(symbols) > 3)
        t.expect_true(f"thread {tid}: its stack ends where threads begin ({symbols[-3:]})",
                      thread["stack"][-1]["file"])


def text(t, name, pid):
    for words in ((name,), (name, "--threads"), (name, "--stacks"), ("-t", pid), ("-t", pid, "--stacks")):
        result = t.fsnap.run("inspect", *words)
        t.expect(f"inspect {words}: exit status", 0, result.status)
        t.expect_true(f"inspect {words} names process {pid}", f"process {pid}" in result.out)
        t.expect(f"inspect {words}: frames", "--stacks" in words, "    #0 " in result.out)


def records(t, image):
    kept = image["records"]
    t.expect("one tree", 1, len(kept["tree"]))
    t.expect("records of processes", len(image["processes"]), len(kept["process"]))
    t.expect_true("the whole of it is JSON again", json.loads(json.dumps(kept)) == kept)


def body(t):
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM], ready="ready")
    running = inspect(t, "-t", pid, "--stacks")
    before = t.look(pid)
    inspect(t, "-t", pid, "--stacks")
    t.expect_unharmed(pid, before, "inspect -t --stacks")
    name = t.dump(pid)["image"]
    image = inspect(t, name, "--stacks")
    compare(t, running, image)
    names(t, image)
    records(t, image)
    text(t, name, pid)
    path = os.path.join(t.fsnap.store, "images", name + ".fsnap")
    t.expect("an image by its path", image["processes"], inspect(t, path, "--stacks")["processes"])
    t.expect_error(t.fsnap.run("inspect", "-t", 2 ** 22 - 1, "--json"), 4, "NO_PROCESS")
    t.expect_error(t.fsnap.run("inspect", "-t", os.getpid(), "--stacks", "--json"), 4, "SELF")
    for process in children.tree(pid):
        os.kill(process, 9)


trial.main(body)
