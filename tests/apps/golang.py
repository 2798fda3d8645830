#!/usr/bin/python3
"""A server in Go under load, with goroutines on several threads and a collector with work to do.
Connections are kept, or reset; no request that was answered is lost or counted twice."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import counting  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT = 8002


def body(t):
    if not os.path.exists("/usr/bin/go"):
        sandbox.skip("Go is not installed")
    builder = children.spawn(["/usr/bin/go", "build", "-o", t.path("counting"), counting.here("counting.go")],
                             out=t.path("build.out"), cwd=t.work,
                             env={**trial.ENVIRONMENT, "GOCACHE": t.path("cache")})
    t.expect("exit status of go build", 0, children.wait(builder, 120))
    pid = t.start([t.path("counting"), str(PORT)], env={**trial.ENVIRONMENT, "GOMAXPROCS": "4", "GOGC": "20"})
    counting.through_it(t, pid, counting.Http(PORT))
    os.kill(pid, 15)
    t.expect("exit status", 7, children.wait(pid, 20))


trial.main(body)
