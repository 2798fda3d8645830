#!/usr/bin/python3
"""--deny, --allow and /etc/fsnap/policy: what the restoring side forbids is refused by name before anything is made,
whatever the image says; what is allowed again comes back."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

IMAGE, USAGE = 6, 2
HOLDER = """
import os, socket, time
kept = [open("data"), open("link/other"), open("/dev/tty0" if os.path.exists("/dev/tty0") else "/dev/null"),
        socket.create_server(("127.0.0.1", 0))]
open("ready", "w").close()
time.sleep(1000)
"""


def refused(t, image, word, *rules):
    before = set(os.listdir("/proc"))
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json", *rules), IMAGE, "FORBIDDEN", word)
    left = [x for x in set(os.listdir("/proc")) - before if x.isdigit() and os.path.exists(f"/proc/{x}/exe")]
    t.expect("nothing was made", [], left)


def comes_back(t, image, pid, *rules):
    result = t.fsnap.run("restore", image, "-d", "--json", *rules)
    if t.expect(f"restore with {rules}: {result.err}", 0, result.status):
        os.kill(pid, 9)
        t.until("its end", lambda: not children.wait_gone([pid], 0.1))
        children.statuses.pop(pid, None)


def body(t):
    os.mkdir(t.path("elsewhere"))
    os.symlink(t.path("elsewhere"), t.path("link"))
    for name in ("data", "elsewhere/other"):
        with open(t.path(name), "w", encoding="ascii") as f:
            f.write(name)
    pid = t.start([sys.executable, "-c", HOLDER], ready="ready")
    image = t.dump(pid, "--kill")["image"]

    refused(t, image, "open file", "--deny", "network")
    refused(t, image, t.path("data"), "--deny", t.path("data"))
    refused(t, image, "elsewhere", "--deny", t.path("elsewhere"))
    refused(t, image, "/usr", "--allow", t.work)
    refused(t, image, "seccomp", "--deny", "unconfined")
    t.expect_error(t.fsnap.run("restore", image, "-d", "--deny", "everything", "--json"), USAGE, "USAGE", "everything")
    comes_back(t, image, pid, "--deny", "credentials")  # it is root's, and so are we
    comes_back(t, image, pid, "--deny", "/nowhere", "--deny", "namespaces")
    comes_back(t, image, pid, "--deny", t.work, "--allow", t.work, "--allow", "/")

    with open(t.path("policy"), "w", encoding="ascii") as f:
        f.write("# of this machine\ndeny network\ndeny /nowhere # nor this\n")
    os.environ["FSNAP_POLICY"] = t.path("policy")
    refused(t, image, "open file")
    comes_back(t, image, pid, "--allow", "network", "--allow", "/")
    with open(t.path("policy"), "a", encoding="ascii") as f:
        f.write("maybe this\n")
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json"), USAGE, "USAGE", "maybe")
    os.environ["FSNAP_POLICY"] = t.path("none")
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json"), 4, "PERMISSION", t.path("none"))
    del os.environ["FSNAP_POLICY"]


trial.main(body)
