"""A suite with a slow setup. Which test it shall be, it reads when that is done."""

import os
import sys
import time

with open(sys.argv[1], "a", encoding="ascii") as f:
    f.write("set up\n")
time.sleep(0.5)  # whatever takes long
table = {number: number ** 2 for number in range(50000)}

os.close(3)  # ready

test = sys.stdin.readline().strip()
assert len(table) == 50000 and table[40000] == 1600000000, "the table is not whole"
with open(sys.argv[1], encoding="ascii") as f:
    assert f.read().count("set up") == 1, "it was set up more than once"
if test == "destructive":
    table.clear()
print(f"{test} passed")
sys.exit(0 if test in ("first", "second", "destructive", "after") else 1)
