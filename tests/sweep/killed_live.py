#!/usr/bin/python3
"""As killed_dump.py, with `fsnap dump --live`: killed while it tracks memory, and while it copies what goes on changing.
Nothing of the tracking is left in the target either."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import killed_dump  # noqa: E402
import sweep  # noqa: E402
import trial  # noqa: E402

trial.main(lambda t: killed_dump.body(t, "--live", seconds=10), 7200 if sweep.FULL else 280)
