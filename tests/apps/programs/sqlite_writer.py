"""Commits one row after another and tells of each once it is committed, until "stop" is there."""

import os
import sqlite3
import sys
import time

database, mode = sys.argv[1:]
connection = sqlite3.connect(database, timeout=30, isolation_level=None)
connection.execute(f"PRAGMA journal_mode={mode}")
connection.execute("PRAGMA synchronous=NORMAL")
connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, content TEXT, copy TEXT)")
with open("acknowledged", "a", buffering=1) as acknowledged:
    number = 0
    while not os.path.exists("stop"):
        number += 1
        content = str(number * 7919) * 20
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO rows VALUES (?, ?, '')", (number, content))
        connection.execute("UPDATE rows SET copy = content WHERE id = ?", (number,))
        connection.execute("COMMIT")
        acknowledged.write(f"{number}\n")
        time.sleep(0.003)  # a moment without a lock
