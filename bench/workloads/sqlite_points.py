#!/usr/bin/python3
"""Point queries of SQLite without end, over the hot tenth of a table: sqlite_points.py PAGE FILE ROWS"""

import random
import sqlite3
import sys

from page import Page

page, rows = Page(sys.argv[1]), int(sys.argv[3])
table = sqlite3.connect(f"file:{sys.argv[2]}?mode=ro", uri=True)
table.execute("PRAGMA cache_size = -256")  # KiB: what is warm is warm in the page cache
table.execute("PRAGMA mmap_size = 0")
while True:
    key = random.randrange(rows // 10)
    if not table.execute("SELECT payload FROM entries WHERE id = ?", (key,)).fetchone():
        sys.exit(f"{key}: not there")
    page.add()
