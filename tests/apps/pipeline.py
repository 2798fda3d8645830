#!/usr/bin/python3
"""A shell pipeline with data in its pipes, killed and restored three times while it flows: no
byte is lost, doubled or out of order, and the shell gets every exit status."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

LINES = 12_000_000 * children.PATIENCE
SCRIPT = f"""
set -o pipefail
seq 1 {LINES} | sed 's/7/seven/' | tee >(wc -c > count) | sha256sum > "$1"
echo "statuses ${{PIPESTATUS[*]}}" >> "$1"
wait
exit 9
"""


def read(path):
    with open(path) as f:
        return f.read()


def body(t):
    began = time.monotonic()
    calm = t.start(["/bin/bash", "-c", SCRIPT, "calm", "calm.sum"], name="calm")
    t.expect("exit status of the calm run", 9, children.wait(calm, 120))
    length = time.monotonic() - began
    expected, count = read(t.path("calm.sum")), read(t.path("count"))
    os.unlink(t.path("count"))
    pid = t.start(["/bin/bash", "-c", SCRIPT, "calm", "sum"])
    for _ in range(3):
        time.sleep(min(length / 12, 0.2))  # the calm run may have had much less of the machine
        t.dump(pid)
        report, _ = t.round_trip(pid)
        t.expect_true(f"dumped while it flows ({report['processes']} processes)",
                      report["processes"] > 3)
    t.expect("exit status", 9, children.wait(pid, 120))
    t.expect("checksum and statuses", expected, read(t.path("sum")))
    t.until("the other branch's count", lambda: read(t.path("count")) == count, 5)


trial.main(body)
