#!/usr/bin/python3
"""Tasks that cannot be saved: such as share a descriptor table or a directory across processes or not
with their own process, such as their own tree traces, 32-bit programs, a parent that waits in vfork(2) for long. The message
names the process and the reason, there is a hint, the tree goes on untouched."""

import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import holder  # noqa: E402
import trial  # noqa: E402
from fsnap import EXIT_REFUSED, EXIT_TARGET  # noqa: E402

KINDS = {
    "shared_files": (EXIT_REFUSED, "UNSUPPORTED", "shares its descriptor table"),
    "shared_directory": (EXIT_REFUSED, "UNSUPPORTED", "shares its working directory"),
    "thread_files": (EXIT_REFUSED, "UNSUPPORTED", "descriptor table of its own"),
    "thread_directory": (EXIT_REFUSED, "UNSUPPORTED", "working directory and umask of its own"),
    "dispatched": (EXIT_REFUSED, "UNSUPPORTED", "dispatches system calls"),
    "segment_32": (EXIT_REFUSED, "UNSUPPORTED", "32-bit"),
    "traced_inside": (EXIT_TARGET, "TRACED", "is being traced by process"),
    "hidden_ring": (EXIT_REFUSED, "UNSUPPORTED", "that no descriptor of the tree leads to"),
    "stuck_vfork": (EXIT_TARGET, "TARGET_BUSY", "vfork"),
}


# ELF for the i386: pause() for ever. No compiler for it is needed, so that it runs everywhere.
CODE = b"\xb8\x1d\x00\x00\x00\xcd\x80\xeb\xf7"
BASE = 0x08048000


def program_32(t):
    header = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01" + bytes(9), 2, 3, 1, BASE + 84, 52, 0, 0,
                         52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, BASE, BASE, 84 + len(CODE), 84 + len(CODE), 5, 4096)
    with open(t.path("elf32"), "wb") as f:
        f.write(header + segment + CODE)
    os.chmod(t.path("elf32"), 0o755)
    pid = t.start([t.path("elf32")])
    if not t.until("it runs", lambda: os.readlink(f"/proc/{pid}/exe").endswith("elf32")):
        return
    before = t.settled(pid)
    for options in (["--json"], ["--json", "--kill"]):
        t.expect_error(t.fsnap.run("dump", "-t", pid, *options), EXIT_REFUSED, "UNSUPPORTED", pid, "32-bit")
        t.expect_unharmed(pid, before, "refusing a 32-bit program")
    os.kill(pid, 9)


def body(t):
    program_32(t)
    for kind, (status, code, words) in KINDS.items():
        pid = holder.start(t, kind, program="odd_tasks")
        before = t.settled(pid)
        for options in (["--json"], ["--json", "--kill"]):
            result = t.fsnap.run("dump", "-t", pid, *options)
            t.expect_error(result, status, code, words)
            t.expect_true(f"{kind}: the message names the process", str(pid) in result.message or
                          str(pid + 1) in result.message)
            t.expect_unharmed(pid, before, f"refusing {kind}")
            holder.expect_well(t, pid, f"refusing {kind}")
        t.expect(f"{kind}: images", [], t.fsnap.run("list", "--json").json["images"])
        holder.stop(pid)


trial.main(body)
