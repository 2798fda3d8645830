#!/usr/bin/python3
"""A cluster of Node.js under load: the first process hands connections to its workers through Unix
sockets, and counts; each worker has threads that make garbage. Connections are kept, or reset; no
request that was answered is lost or counted twice."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import counting  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT = 8001


def body(t):
    if not os.path.exists("/usr/bin/node"):
        sandbox.skip("Node.js is not installed")
    pid = t.start(["/usr/bin/node", counting.here("counting.js"), str(PORT)])
    counting.through_it(t, pid, counting.Http(PORT))
    t.expect("processes", 3, len(children.tree(pid)))
    os.kill(pid, 15)
    t.expect("exit status", 7, children.wait(pid, 20))


trial.main(body)
