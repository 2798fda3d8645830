#!/usr/bin/python3
"""A compile job: make with four jobs, whose compilers come and go, is dumped all the time where it goes on, and
killed and restored in between. What comes of it is, byte for byte, what an undisturbed build makes,
and nothing is compiled twice."""

import glob
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

FILES, ROUNDS = 32 * children.PATIENCE, 4
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "all.h"
struct pair {{ int a, b; }};
int part{i}(int n)
{{
	struct pair p[64];
	char text[256];
	for (int i = 0; i < 64; i++)
		p[i] = (struct pair){{i * {i}, n + i}};
	for (int i = 0; i < 64; i++)
		n += p[(i * 7 + {i}) % 64].a ^ p[i].b;
	snprintf(text, sizeof(text), "part %d %d", {i}, n);
	return n + (int)strlen(text);
}}
"""
MAKEFILE = """
objects = $(patsubst %.c,%.o,$(sort $(wildcard part*.c))) main.o
all: sum
	./sum > sum.out
sum: $(objects)
	gcc -pipe -o $@ $^
%.o: %.c all.h
	@echo compiled $<
	gcc $(if $(findstring 1.c,$<),-pipe) -O2 -c -o $@ $<
"""


def source(t, name):
    """One source tree; where it lies must not show in what is built."""
    top = t.path(name)
    os.mkdir(top)
    files = {f"part{i}.c": SOURCE.format(i=i) for i in range(FILES)}
    files["all.h"] = "".join(f"int part{i}(int n);\n" for i in range(FILES))
    files["main.c"] = '#include <stdio.h>\n#include "all.h"\nint main(void)\n{\n\tint n = 0;\n' + "".join(
        f"\tn = part{i}(n);\n" for i in range(FILES)) + '\tprintf("%d\\n", n);\n\treturn 0;\n}\n'
    files["Makefile"] = MAKEFILE
    for path, text in files.items():
        with open(os.path.join(top, path), "w", encoding="utf-8") as f:
            f.write(text)
    return top


def start(t, top):
    return children.spawn(["/usr/bin/make", "-j4"], out=os.path.join(top, "said"), cwd=top, session=True,
                          env={**trial.ENVIRONMENT, "TMPDIR": top})


def built(top):
    found = {}
    for path in sorted(glob.glob(os.path.join(top, "*.o")) + [os.path.join(top, n) for n in ("sum", "sum.out")]):
        with open(path, "rb") as f:
            found[os.path.basename(path)] = f.read()
    return found


def compiled(top):
    with open(os.path.join(top, "said"), encoding="utf-8") as f:
        return [line for line in f if line.startswith("compiled")]


def body(t):
    if not os.path.exists("/usr/bin/make") or not os.path.exists("/usr/bin/gcc"):
        sandbox.skip("make or gcc is not installed")
    alone, disturbed = source(t, "alone"), source(t, "disturbed")
    t.expect("exit status of the undisturbed build", 0, children.wait(start(t, alone), 120))
    pid = start(t, disturbed)
    for number in range(1, ROUNDS + 1):
        t.until("some more is compiled", lambda: len(compiled(disturbed)) >= number * FILES // (ROUNDS + 2), 60)
        t.dump(pid)
        report, _ = t.round_trip(pid)
        t.note(f"{report['processes']} processes, {len(compiled(disturbed))} begun, "
               f"frozen {report['frozen_us'] / 1000:.1f} ms")
    t.expect("exit status of make", 0, children.wait(pid, 120))
    expected, seen = built(alone), built(disturbed)
    t.expect("what is built", sorted(expected), sorted(seen))
    t.expect("differs", [], [name for name in expected if expected[name] != seen.get(name)])
    t.expect("compiled", sorted(compiled(alone)), sorted(compiled(disturbed)))
    t.expect("left in TMPDIR", [], glob.glob(os.path.join(disturbed, "cc*")))


trial.main(body)
