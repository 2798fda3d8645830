#!/usr/bin/python3
"""Images that ask for what their programs never had (images/hostile.c): what the restoring side denies is not to be had by
another name, handle or kind of file either, nor what the restoring user may not; nothing is made then."""

import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

FAILED, IMAGE, USER = 1, 6, 1000
HOLDER = """
import os, socket, time
kept = [open("file"), open(f"/proc/{os.getpid()}/status"), socket.socket(socket.AF_UNIX)]
kept[2].bind("sock")
kept[2].listen()
open("../ready", "w").close()
time.sleep(1000)
"""


class Hostile:
    def __init__(self, t):
        self.t, self.made = t, 0
        self.data, self.secret = t.path("data"), t.path("secret")

    def make(self, image, what, was, now, store=None, user=0):
        self.made += 1
        name = f"hostile{self.made}"
        subprocess.run([os.path.join(self.t.helpers, "hostile"), store or self.t.fsnap.store, image, name, what, was, now],
                       check=True, user=user, group=user, extra_groups=[])
        return name

    def restore(self, name, *words, **how):
        """Nobody may be left of it."""
        before = set(os.listdir("/proc"))
        result = self.t.fsnap.run("restore", name, "-d", "--json", *words, cwd=self.data, timeout=10, **how)
        children.reap()
        left = [x for x in set(os.listdir("/proc")) - before if x.isdigit() and os.path.exists(f"/proc/{x}/exe")]
        self.t.expect(f"{name}: nobody was made", [], left)
        for pid in left:
            os.kill(int(pid), 9)
        children.wait_gone([int(x) for x in left], 5)
        return result

    def refused(self, image, code, word, what, was, now, *words):
        status = FAILED if code == "FILE_CHANGED" else IMAGE
        self.t.expect_error(self.restore(self.make(image, what, was, now), *words), status, code, word, hint=False)


def start(t, work, **how):
    if os.path.exists(t.path("ready")):
        os.unlink(t.path("ready"))
    return t.start(["/usr/bin/python3", "-c", f"import os; os.chdir({work!r})\n" + HOLDER], ready="ready", **how)


def of_root(t, h):
    pid = start(t, h.data)
    image = t.dump(pid, "--kill")["image"]
    file, secret, deny = os.path.join(h.data, "file"), os.path.join(h.secret, "file"), ("--deny", h.secret)
    h.refused(image, "FORBIDDEN", "secret", "path", file, secret, *deny)
    h.refused(image, "FORBIDDEN", "secret", "path", file, "../secret/file", *deny)
    h.refused(image, "FORBIDDEN", "secret", "path", file, os.path.join(h.data, "../secret/file"), *deny)
    h.refused(image, "FORBIDDEN", "secret", "path", file, os.path.join(h.data, "link/file"), *deny)
    h.refused(image, "FORBIDDEN", "secret", "handle", file, secret, *deny)
    h.refused(image, "FORBIDDEN", "device", "path", file, t.path("device"), "--deny", "devices")
    h.refused(image, "FILE_CHANGED", "fifo", "name", file, t.path("fifo"))
    h.refused(image, "FILE_CHANGED", "device", "name", file, t.path("device"))
    h.refused(image, "FORBIDDEN", "secret", "socket", "sock", "../secret/sock", *deny)
    h.refused(image, "FORBIDDEN", "secret", "socket", "sock", "link/sock", *deny)
    for path in (f"/proc/1/root{secret}", f"/proc/{pid}/cwd/../secret/file", f"/proc/{pid}/fd/3", f"/proc/{pid}/exe"):
        h.refused(image, "IMAGE_CORRUPT", path, "proc", "/status", path, *deny)
    h.refused(image, "FORBIDDEN", "secret", "proc", "/status", secret, *deny)
    t.expect("nothing in it", ["file"], os.listdir(h.secret))
    again = h.make(image, "path", file, os.path.join(h.data, "other"))  # and the program that does it is honest
    t.expect("what is allowed", pid, t.restore(again)["pid"])
    t.expect("what it has open", os.path.join(h.data, "other"), os.readlink(f"/proc/{pid}/fd/3"))
    os.kill(pid, 9)
    children.wait_gone([pid], 5)


def of_a_user(t, h):
    store = t.path("store.user")
    work = t.path("work")
    os.mkdir(work, 0o777)
    os.chmod(work, 0o777)
    with open(os.path.join(work, "file"), "w", encoding="ascii"):
        pass
    pid = start(t, work, uid=USER)
    result = t.fsnap.run("--store", store, "dump", "-t", pid, "--name", "users", "--kill", "--json", uid=USER)
    t.expect(f"dumped by its user: {result.err}", 0, result.status)
    t.fsnap.store = store
    for what, was, now in (("user", "0", "0"), ("path", os.path.join(work, "file"), os.path.join(h.secret, "file"))):
        name = h.make("users", what, was, now, store, USER)
        result = h.restore(name, "--new-pids", uid=USER)
        t.expect_true(f"{what} {now}, restored by a user: exit status {result.status}", result.status in (1, 4, 6, 125))


def body(t):
    h = Hostile(t)
    os.chmod(t.work, 0o777)
    os.mkdir(h.data)
    os.mkdir(h.secret, 0o700)
    for path in (os.path.join(h.data, "file"), os.path.join(h.data, "other"), os.path.join(h.secret, "file")):
        with open(path, "w", encoding="ascii"):
            pass
    os.symlink(h.secret, os.path.join(h.data, "link"))
    os.mkfifo(t.path("fifo"))
    os.mknod(t.path("device"), stat.S_IFCHR | 0o600, os.makedev(1, 1))
    of_root(t, h)
    of_a_user(t, h)


trial.main(body)
