#!/usr/bin/python3
"""tools/pytest-fsnap repeats structs of <fsnap/fsnap.h>: every field lies where the header has it, is as large, and none
before the last is left out."""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import sandbox  # noqa: E402
import trial  # noqa: E402

ROOT = os.path.dirname(trial.TESTS)
STRUCTS = {"Error": "fsnap_error", "DumpOptions": "fsnap_dump_options", "RestoreOptions": "fsnap_restore_options",
           "RestoreReport": "fsnap_restore_report"}
CONSTANTS = {"PREFETCH_OFF": "FSNAP_PREFETCH_OFF", "NAME_MAX": "FSNAP_NAME_MAX"}


def program(library):
    """Prints `struct field offset size` of each field that the plugin has, and constants."""
    lines = ["#include <fsnap/fsnap.h>", "#include <stddef.h>", "#include <stdio.h>", "int main(void)", "{"]
    for ours, theirs in STRUCTS.items():
        for name, *_ in getattr(library, ours)._fields_:
            field = name.rstrip("_")
            lines.append(f'printf("{ours} {name} %zu %zu\\n", offsetof(struct {theirs}, {field}), '
                         f"sizeof(((struct {theirs} *)0)->{field}));")
    for ours, theirs in CONSTANTS.items():
        lines.append(f'printf("{ours} = %d\\n", (int){theirs});')
    return "\n".join([*lines, "return 0;", "}"])


def seen(t, library):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        sandbox.skip("no C compiler")
    with open(t.path("fields.c"), "w", encoding="ascii") as f:
        f.write(program(library))
    done = subprocess.run([compiler, "-Wall", "-Werror", f"-I{t.path('include')}", "-o",
                           t.path("fields"), t.path("fields.c")], capture_output=True, text=True, check=False)
    if not t.expect("a program with these fields: compiles", (0, ""), (done.returncode, done.stderr)):
        raise trial.Stop("cannot go on")
    return subprocess.run([t.path("fields")], capture_output=True, text=True, check=True).stdout.splitlines()


def body(t):
    sys.path.insert(0, os.path.join(ROOT, "tools", "pytest-fsnap", "pytest_fsnap"))
    import library  # noqa: E402  (the plugin's; pytest is not needed for it)
    os.makedirs(t.path("include/fsnap"))
    for header in ("engine/fsnap.h", "store/fsnap/error.h"):
        shutil.copy(os.path.join(ROOT, header), t.path("include/fsnap"))
    answers = seen(t, library)
    for line in answers:
        words = line.split()
        if words[1] == "=":
            t.expect(words[0], int(words[2]), getattr(library, words[0]))
            continue
        struct, field, offset, size = words
        ours = getattr(getattr(library, struct), field)
        t.expect(f"{struct}.{field}: offset and size", (int(offset), int(size)), (ours.offset, ours.size))
    t.expect_true("fields were compared", len(answers) > 50)


trial.main(body)
