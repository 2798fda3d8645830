#!/usr/bin/python3
"""Control groups of both versions: left alone, rejoined or created again with their limits, for processes and for
single threads; what was created is removed if the restore fails. A frozen group is refused by name. A restore in
a group without real-time budget, or without the CPUs that a thread was bound to, says so."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_TARGET, EXIT_USAGE  # noqa: E402

NAME = f"fsnap-test-{os.getpid()}"

# A child, and a second thread in each.
PROGRAM = """
import os, threading, time
name = "child" if os.fork() == 0 else "parent"
threading.Thread(target=time.sleep, args=(1000,)).start()
open(name, "w").write("%d" % os.getpid())
time.sleep(1000)
"""

REALTIME = """
import os, time
os.sched_setaffinity(0, {%d})
os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))
open("realtime", "w").close()
time.sleep(1000)
"""


def find_mounts():
    """Hierarchy as /proc/PID/cgroup calls it ("" is version 2) -> where it is mounted."""
    found = {}
    with open("/proc/self/mounts") as f:
        for line in f:
            _, point, kind, options = line.split()[:4]
            if kind == "cgroup2":
                found[""] = point
            elif kind == "cgroup":
                for one in ("cpu", "pids", "freezer", "cpuset"):
                    if one in options.split(","):
                        found[one] = point
    return found


def write(path, text):
    with open(path, "w") as f:
        f.write(str(text))


def text(path):
    with open(path) as f:
        return f.read().strip()


class Groups:
    def __init__(self, mounts):
        self.mounts, self.made = mounts, []

    def make(self, kind, name, **settings):
        path = os.path.join(self.mounts[kind], name)
        os.mkdir(path)
        self.made.append(path)
        for key, value in settings.items():
            write(os.path.join(path, key.replace("__", ".")), value)
        return path

    def remove(self):
        deadline = time.monotonic() + 10
        for path in reversed(self.made):
            while os.path.isdir(path) and time.monotonic() < deadline:
                children.reap()
                try:
                    os.rmdir(path)
                except OSError:
                    time.sleep(0.01)


def threads(pid):
    return sorted(int(x) for x in os.listdir(f"/proc/{pid}/task"))


def seen(pids):
    """What every thread is in."""
    return {tid: text(f"/proc/{pid}/task/{tid}/cgroup") for pid in pids for tid in threads(pid)}


def whole(t, groups):
    pid = t.start(["/usr/bin/python3", "-c", PROGRAM])
    t.until("it runs", lambda: text(t.path("parent")) and text(t.path("child")))
    pids = [pid, int(text(t.path("child")))]
    alone = seen(pids)
    limits = {}
    if "cpu" in groups.mounts:
        top = groups.make("cpu", NAME, cpu__shares=512)
        inner = groups.make("cpu", NAME + "/inner", cpu__shares=300, cpu__cfs_quota_us=50000)
        other = groups.make("cpu", NAME + "/thread", cpu__shares=200)
        write(top + "/cgroup.procs", pids[0])
        write(inner + "/cgroup.procs", pids[1])
        write(other + "/tasks", threads(pids[0])[1])
        limits.update({top + "/cpu.shares": "512", inner + "/cpu.shares": "300",
                       inner + "/cpu.cfs_quota_us": "50000", other + "/cpu.shares": "200"})
    if "pids" in groups.mounts:
        top = groups.make("pids", NAME, pids__max=77)
        write(top + "/cgroup.procs", pids[1])
        limits[top + "/pids.max"] = "77"
    if "" in groups.mounts:
        top = groups.make("", NAME, cgroup__type="threaded", cgroup__max__depth=5)
        inner = groups.make("", NAME + "/inner", cgroup__type="threaded")
        write(top + "/cgroup.procs", pids[0])
        write(inner + "/cgroup.threads", threads(pids[0])[1])
        limits.update({top + "/cgroup.max.depth": "5", inner + "/cgroup.type": "threaded"})
    return pid, pids, alone, seen(pids), limits


def check(t, what, pids, places, limits):
    t.expect(f"{what}: control groups of all threads", places, seen(pids))
    t.expect(f"{what}: limits", limits, {path: text(path) for path in limits})


def membership(t, groups):
    pid, pids, alone, places, limits = whole(t, groups)
    t.expect_true("it is in groups of its own", alone != places)
    if t.control:
        check(t, "nothing done", pids, places, limits)
        os.killpg(pid, signal.SIGKILL)
        return
    report = t.dump(pid, "--kill", "--name", "first")
    t.expect_true("a note says that there are several", "--cgroup rejoin" in str(report["notes"]))
    restore = lambda *options: t.fsnap.run("restore", "first", "-d", "--json", *options)

    t.expect("rejoin where they are: exit status", 0, restore("--cgroup", "rejoin").status)
    check(t, "rejoined", pids, places, limits)
    t.dump(pid, "--kill", "--name", "second")
    groups.remove()

    t.expect_error(restore("--cgroup", "rejoin"), 1, "RESTORE_STEP", NAME)
    t.expect("processes after that", [], [p for p in pids if os.path.exists(f"/proc/{p}")])
    t.expect_error(restore("--cgroup", "elsewhere"), EXIT_USAGE, "USAGE", "elsewhere")
    t.expect("left alone: exit status", 0, restore().status)
    t.expect("left alone: as fsnap is", alone, seen(pids))
    t.dump(pid, "--kill", "--name", "third")

    write("/proc/sys/kernel/ns_last_pid", pids[1] - 1)  # somebody takes the child's number
    squatter = children.spawn(["/usr/bin/sleep", "100"])
    t.expect("the number is taken", pids[1], squatter)
    t.expect("create, number taken: fails", True, restore("--cgroup", "create").status != 0)
    t.expect("groups left behind", [], [p for p in groups.made if os.path.isdir(p)])
    os.kill(squatter, signal.SIGKILL)
    children.wait(squatter, 5)

    for name in ("first", "second"):  # the second was saved in groups that a restore had joined
        result = t.fsnap.run("restore", name, "-d", "--json", "--cgroup", "create")
        if t.expect(f"create {name}: exit status", 0, result.status):
            t.expect_true("no note", "control group" not in str(result.json["notes"]))
            check(t, f"created {name}", pids, places, limits)
        else:
            t.note(str(result))
        t.dump(pid, "--kill", "--name", f"of-{name}")
        groups.remove()


def frozen(t, groups):
    for kind, file, on, off in (("", "cgroup.freeze", "1", "0"), ("freezer", "freezer.state", "FROZEN", "THAWED")):
        if kind not in groups.mounts:
            t.note(f"no {kind or 'version 2'} here")
            continue
        pid = t.start(["/usr/bin/sleep", "100"])
        group = groups.make(kind, NAME + "-frozen")
        write(group + "/cgroup.procs", pid)
        write(f"{group}/{file}", on)
        time.sleep(0.1)
        began = time.monotonic()
        if not t.control:
            t.expect_error(t.fsnap.run("dump", "-t", pid, "--json"), EXIT_TARGET, "TARGET_BUSY", "frozen", NAME,
                           str(pid))
        t.expect_true("told at once", time.monotonic() - began < 2)
        write(f"{group}/{file}", off)
        if not t.control:
            t.dump(pid)
        os.kill(pid, signal.SIGKILL)
        children.wait(pid, 5)
    groups.remove()


def scheduling(t, groups):
    cpus = sorted(os.sched_getaffinity(0))
    if t.control or not {"cpu", "cpuset"} <= set(groups.mounts) or len(cpus) < 2:
        t.note("no version 1 cpu and cpuset here, or one CPU")
        return
    budget = groups.make("cpu", NAME + "-budget")
    if not os.path.exists(budget + "/cpu.rt_runtime_us"):
        t.note("no CONFIG_RT_GROUP_SCHED here")
        return
    few = groups.make("cpuset", NAME + "-few", cpuset__cpus=cpus[0], cpuset__mems=0)
    pid = t.start(["/usr/bin/python3", "-c", REALTIME % cpus[-1]], ready="realtime")
    t.dump(pid, "--kill", "--name", "realtime")

    def inside(group):
        return lambda: write(group + "/cgroup.procs", "0")

    handle = t.fsnap.start("restore", "realtime", "-d", "--json", before=inside(budget))
    result = t.fsnap.finish(handle)
    t.expect_error(result, 1, "RESTORE_STEP", "scheduling policy")
    t.expect_true("the hint names the budget", "cpu.rt_runtime_us" in result.hint)
    t.expect_true("nothing is left", not os.path.exists(f"/proc/{pid}"))
    result = t.fsnap.finish(t.fsnap.start("restore", "realtime", "-d", "--json", before=inside(few)))
    if t.expect("without its CPU: exit status", 0, result.status):
        t.expect_true("without its CPU: a note", "was bound to" in str(result.json["notes"]))
        t.expect("without its CPU: it runs where it can", {cpus[0]}, os.sched_getaffinity(pid))
        os.kill(pid, signal.SIGKILL)
    groups.remove()


def body(t):
    groups = Groups(find_mounts())
    if not groups.mounts:
        sandbox.skip("no control groups are mounted here")
    try:
        membership(t, groups)
        frozen(t, groups)
        scheduling(t, groups)
    finally:
        for path in groups.made:
            for name in ("cgroup.procs", "cgroup.threads"):
                try:
                    for pid in text(os.path.join(path, name)).split():
                        os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    pass
        groups.remove()


trial.main(body)
