#!/usr/bin/python3
"""fsnap doctor tells the truth: what it calls good works, what is taken away is found lacking, for root and for others;
each lack says its price and its remedy. It changes nothing."""

import ctypes
import os
import re
import resource
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402
from terminal import Terminal  # noqa: E402

libc = ctypes.CDLL(None, use_errno=True)
PTRACE, KCMP = 101, 312
CAP_NET_ADMIN, CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN = 12, 40, 21
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 24, 38, 22


def drop(*capabilities):
    def before():
        for number in capabilities:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    return before


def forbid(*calls):
    """A seccomp filter as containers have it: EPERM for these system calls."""
    def before():
        code = [(0x20, 0, 0, 0)] + [(0x15, len(calls) - i, 0, n) for i, n in enumerate(calls)]
        code += [(6, 0, 0, 0x7fff0000), (6, 0, 0, 0x00050001)]
        text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(text)))
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0)
    return before


def examine(t, status=0, **how):
    result = t.fsnap.run("doctor", "--json", **how)
    t.expect(f"doctor {how}: exit status", status, result.status)
    if not t.expect_true(f"doctor {how}: a document", isinstance(result.json, dict)):
        raise trial.Stop(str(result))
    t.expect("works", status == 0, result.json["works"])
    return {check["name"]: check for check in result.json["checks"]}


def well_told(t, checks):
    for name, check in checks.items():
        t.expect_true(f"{name}: {check['state']} is a state", check["state"] in ("good", "partly", "lacks", "fatal"))
        t.expect_true(f"{name}: says what was found", check["found"])
        for member in ("costs", "remedy"):
            t.expect(f"{name} is {check['state']}: {member}", check["state"] != "good", bool(check[member]))


def states(t, checks, **expected):
    for name, state in expected.items():
        name = name.replace("_", " ")
        t.expect(f"{name} ({checks[name]['found']})", state, checks[name]["state"])


def root(t):
    checks = examine(t)
    well_told(t, checks)
    states(t, checks, own_children="good", memory="good", descriptors="good", choosing_process_IDs="good",
           physical_frames="good", memory_without_a_name="good", seccomp_filters="good")
    # What is called good is what the rest of fsnap finds.
    pid = t.start(["/usr/bin/sleep", "1000"])
    t.until("it sleeps", lambda: "nanosleep" in open(f"/proc/{pid}/wchan", encoding="ascii").read())
    t.expect("a dump and a restore agree with it", pid, t.round_trip(pid)[1]["pid"])
    os.kill(pid, 9)
    return checks


def somebody(t, of_root):
    store, t.fsnap.store = t.fsnap.store, "/dev/shm/somebody"
    checks = examine(t, uid=1000)
    t.fsnap.store = store
    states(t, examine(t, status=1, uid=1000), directory="fatal")  # root's
    well_told(t, checks)
    t.expect("the same checks for everybody", list(of_root), list(checks))
    states(t, checks, own_children="good", memory="good")
    t.expect("other users' programs", "lacks", checks["other users' programs"]["state"])
    states(t, checks, choosing_process_IDs="lacks", physical_frames="lacks", TCP_connections="lacks",
           nftables="lacks", warmth_of_the_page_cache="lacks")


def taken_away(t):
    checks = examine(t, before=drop(CAP_NET_ADMIN))
    states(t, checks, TCP_connections="lacks", nftables="lacks", choosing_process_IDs="good")
    t.expect_true("names the capability", "CAP_NET_ADMIN" in checks["users and capabilities"]["found"])
    t.expect_true("and whom root may ask", "--cap-add" in checks["users and capabilities"]["remedy"])
    states(t, examine(t, before=drop(CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN)), choosing_process_IDs="lacks",
           memory_without_a_name="lacks", TCP_connections="good")
    checks = examine(t, status=1, before=forbid(PTRACE))
    states(t, checks, own_children="fatal", same_open_files="good", memory="good")
    states(t, examine(t, status=1, before=forbid(KCMP)), own_children="good", same_open_files="fatal")
    checks = examine(t, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    states(t, checks, open_files="partly")
    t.expect("says the limit", "200 (ulimit -Hn)", checks["open files"]["found"])


def stores(t):
    store, t.fsnap.store = t.fsnap.store, "/dev/shm/deep/er"
    checks = examine(t)
    t.expect("a store that is to be made", "/dev/shm/deep/er (will be made)", checks["directory"]["found"])
    t.expect_true(f"its medium: {checks['medium']['found']}", checks["medium"]["found"].startswith("memory"))
    t.expect("it is not made", False, os.path.exists("/dev/shm/deep"))
    t.fsnap.store = "/proc/nowhere"
    states(t, examine(t, status=1), directory="fatal")
    t.fsnap.store = store


def text(t):
    result = t.fsnap.run("doctor")
    lines = [line for line in result.out.splitlines() if re.match("  (good|partly|lacks|fatal) ", line)]
    t.expect("as many lines as checks", len(examine(t)), len(lines))
    t.expect("aligned", [], [line for line in lines if line[8:10] != "  " and (line[9] == " " or line[37] == " ")])
    t.expect("no colour in a file", False, "\033" in result.out)
    t.expect("quiet", "", t.fsnap.run("doctor", "--quiet").out)
    shown = Terminal([t.fsnap.binary, "doctor"], t.work, {"HOME": t.work})
    t.expect("on a terminal: exit status", 0, shown.end())
    t.expect_true("on a terminal: headings are bold", "\033[1mMemory\033[0m" in shown.text)
    plain = re.sub(r"\033\[[0-9;]*m", "", shown.text).replace("\r", "")
    t.expect("on a terminal the same is said", [x[2:37] for x in lines],
             [x[2:37] for x in plain.splitlines() if re.match("  (good|partly|lacks|fatal) ", x)])


def body(t):
    before = sorted(os.listdir(t.work))
    of_root = root(t)
    somebody(t, of_root)
    taken_away(t)
    stores(t)
    text(t)
    t.expect("no process is left", [], [p for p in children.tree(os.getpid()) if p != os.getpid()])
    t.expect("nor anything else", before, sorted(set(os.listdir(t.work)) - {"target.out"}))


trial.main(body)
