#!/usr/bin/python3
"""Memory shared copy-on-write, as reports tell of it: root's dump stores a frame once, whoever maps it;
an owner without privileges is not shown frames, stores copies, and says so. Neither ends the sharing."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import outside  # noqa: E402
import trial  # noqa: E402

FAMILY = """
import os, time
heap = [bytes([i % 251]) * 4096 for i in range(500)]
for i in range(3):
    if os.fork() == 0:
        break
open("ready.%d" % os.getpid(), "w").close()
while True:
    time.sleep(100)
"""


def body(t):
    os.chmod(t.work, 0o777)
    store = t.path("store-of-1000")
    os.mkdir(store, 0o700)
    os.chown(store, 1000, 1000)
    pid = t.start(["/usr/bin/python3", "-c", FAMILY], uid=1000)
    t.until("all are ready", lambda: sum(x.startswith("ready.") for x in os.listdir(t.work)) == 4)
    pids = children.tree(pid)
    outside.settled(lambda: outside.sharing(pids), pids)
    if t.control:
        return
    before = outside.sharing(pids)
    t.expect_true("the family shares pages", len(before) > 400)

    report = t.dump(pid)
    t.expect_true("pages of one frame are stored once", report["shared_pages"] > 3 * 400)
    t.expect("what root's dump did to sharing", [], outside.sharing_lost(before, outside.sharing(pids)))
    t.expect_true("no note about it", "copy-on-write" not in str(report["notes"]))

    result = t.fsnap.run("--store", store, "dump", "-t", pid, "--json", uid=1000)
    if not t.expect("the owner's dump", 0, result.status):
        t.note(str(result))
        return
    t.expect_true("a note says that it stored copies",
                  "copy-on-write" in str(result.json["notes"]) and "root" in str(result.json["notes"]))
    t.expect("pages stored once for all", 0, result.json["shared_pages"])
    t.expect("what the owner's dump did to sharing", [],
             outside.sharing_lost(before, outside.sharing(pids)))


trial.main(body)
