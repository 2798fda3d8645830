#!/usr/bin/python3
"""As killed_dump.py, with copy-on-write at the freeze: killed while children are made that keep its memory, and while it
copies from them. Nobody of them is left."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import killed_dump  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

ALL = "fffffffffffbfeff"  # signals that can be blocked


def copies():
    """Those who run nothing but the agent."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                found += [pid] if f"SigBlk:\t{ALL}" in file.read() else []
        except OSError:
            pass
    return found


def body(t):
    killed_dump.body(t, "--no-live", "--max-freeze", "1us", seconds=10)
    t.until("no copy is left", lambda: not copies())


os.environ["FSNAP_SNAPSHOT"] = "1"
trial.main(body, 7200 if sweep.FULL else 280)
