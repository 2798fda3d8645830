"""Starts sweep/programs/bag.py, which holds a little of everything, and asks whether it is all there; what of
the machine a restore could leave behind."""

import os
import re
import signal
import subprocess
import time

import children
import sandbox
import sysv
import trial

PROGRAM = os.path.join(trial.TESTS, "sweep", "programs", "bag.py")


class Bag:
    def __init__(self, t, *without):
        self.t, self.without, self.asked, self.pid = t, without, 0, None
        self.queues = t.path("mqueue")
        os.makedirs(self.queues)
        sandbox.mount("mqueue", self.queues, "mqueue")
        sandbox.mount("none", "/dev/shm", "tmpfs")  # other people's are none of our business
        sandbox.mount("none", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=666")
        sandbox.mount("/dev/pts/ptmx", "/dev/ptmx", "none", sandbox.MS_BIND)

    def end(self):
        for pid in children.tree(self.pid) if self.pid else []:
            os.kill(pid, signal.SIGKILL)
            children.wait_gone([pid], 5)
        self.forget()

    def forget(self):
        """What it has answered; one restored from an image counts as it did when it was saved."""
        children.reap()
        children.statuses.clear()
        for name in os.listdir(self.t.work):
            if name.startswith("answer."):
                os.unlink(self.t.path(name))

    def remove_objects(self):
        """What outlives processes."""
        sysv.remove_all()
        for name in os.listdir(self.queues):
            os.unlink(os.path.join(self.queues, name))

    def remove_names(self):
        """The same, with the files of sockets."""
        self.remove_objects()
        for name in ("bag.listener", "bag.dgram"):
            if os.path.exists(self.t.path(name)):
                os.unlink(self.t.path(name))

    def clear(self):
        """Nothing of it is left: processes, System V objects, queues, names in the file system."""
        self.end()
        self.remove_names()
        for name in os.listdir(self.t.work):
            if name.startswith(("bag.", "ready", "fifo")):
                os.unlink(self.t.path(name))

    def start(self):
        self.clear()
        self.asked = 0
        self.pid = self.t.start(["/usr/bin/python3", PROGRAM, *self.without], ready="ready", name="bag")
        return self.pid

    def wrong(self, patience=10):
        """What is not as it had been put in; [] is what one hopes for."""
        self.asked += 1
        self.forget()
        deadline = time.monotonic() + patience
        try:
            # Python would see it only when a call in which it was met returns.
            while open(f"/proc/{self.pid}/syscall", encoding="ascii").read().startswith("running"):
                time.sleep(0.001)
            os.kill(self.pid, signal.SIGUSR1)
        except OSError as e:
            children.reap()
            return [f"it is gone: {e}, {children.statuses.get(self.pid)}"]
        while not (found := [x for x in os.listdir(self.t.work) if re.fullmatch(r"answer\.\d+", x)]):
            children.reap()
            if time.monotonic() > deadline or self.pid in children.statuses:
                return [f"no answer; status {children.statuses.get(self.pid)}"]
            time.sleep(0.002)
        return read(self.t.path(found[0])).splitlines()


def processes():
    children.reap()
    return sorted(int(x) for x in os.listdir("/proc") if x.isdigit() and int(x) > 1)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def names_below(*tops):
    found = []
    for top in tops:
        for where, directories, files in os.walk(top):
            found += [os.path.join(where, x) for x in directories + files]
    return found


def said_by(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def machine(t, *more):
    """What there is besides this process, its own files and fsnap's store, as a set of lines."""
    found = {f"process {pid} {read(f'/proc/{pid}/comm').strip()}" for pid in processes()}
    names = {"shm": "shmid", "sem": "semid", "msg": "msqid"}
    for sort in names:
        found |= {f"{sort} {row[names[sort]]} key {row['key']:x}" for row in sysv.objects(sort)}
    store = t.fsnap.store
    own = re.compile(re.escape(t.fsnap.work) + r"/fsnap\.\d+\.")
    found |= {f"file {name}" for name in names_below(t.work, "/dev/shm", "/dev/pts", *more)
              if not own.match(name) and not name.startswith(os.path.join(store, "pool"))}
    found |= {f"unix {line.split(maxsplit=7)[-1]}" for line in read("/proc/net/unix").splitlines()
              if len(line.split()) > 7}
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "packet", "netlink"):
        found |= {f"{kind} {' '.join(line.split()[1:4])}" for line in read(f"/proc/net/{kind}").splitlines()}
    found |= {f"link {line}" for line in said_by("ip", "-o", "link")}
    found |= {f"rule {line}" for line in said_by("nft", "list", "ruleset")}
    return found


PASSING = re.compile("^file .*/(answer|told|stopat|bag.(listener|dgram))")


def strange(t, before, patience=2):
    """What is on the machine and was not before; helpers of fsnap that is dead have a moment to go."""
    deadline = time.monotonic() + patience
    while True:
        found = sorted(x for x in machine(t) - before if not PASSING.match(x) and t.fsnap.store not in x)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)
