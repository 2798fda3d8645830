#!/usr/bin/python3
"""SQLite writing in a loop, with a rollback journal and with a write-ahead log, dumped, killed and
restored in the middle: the database is sound, every row that was acknowledged is there once, and
somebody outside can read all the time."""

import os
import sqlite3
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "sqlite_writer.py")


def acknowledged(t):
    with open(t.path("acknowledged")) as f:
        return len(f.readlines())


def check(t, database, ended=False):
    known = acknowledged(t)
    connection = sqlite3.connect(database, timeout=20)
    t.expect("integrity_check", [("ok",)], connection.execute("PRAGMA integrity_check").fetchall())
    there = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM rows").fetchone()
    t.expect("ids without a gap", there[0], there[1])
    t.expect_true(f"rows ({there[0]}) include what was acknowledged ({known})", there[0] >= known)
    odd = connection.execute("SELECT count(*) FROM rows WHERE copy <> content").fetchone()[0]
    t.expect("rows written half", 0, odd)
    if ended:
        t.expect("rows", known, there[0])
    connection.close()


def patiently(t, pid, *more):
    """A dump may be refused while the writer holds a record lock; the hint says to try again."""
    for _ in range(200):
        try:
            return t.dump(pid, *more)
        except trial.Stop as e:
            if "record lock" not in str(e):
                raise
    return None


def one_mode(t, mode):
    database = t.path(f"{mode}.db")
    open(t.path("acknowledged"), "w").close()
    if os.path.exists(t.path("stop")):
        os.unlink(t.path("stop"))
    pid = t.start(["/usr/bin/python3", PROGRAM, database, mode])
    t.until("first rows", lambda: acknowledged(t) > 20)
    for _ in range(3):
        if not patiently(t, pid):
            # A write-ahead log is locked as long as it is open.
            t.expect_true(f"{mode}: saved at some moment", mode == "wal")
            t.note(f"skip: {mode}: refused every time for a record lock; the writer is unharmed:")
            break
        check(t, database)
        before = acknowledged(t)
        t.restore(patiently(t, pid, "--kill")["image"])
        check(t, database)
        t.until("it goes on writing", lambda: acknowledged(t) > before + 20)
        time.sleep(0.02)
    open(t.path("stop"), "w").close()
    t.expect(f"exit status of the writer ({mode})", 0, children.wait(pid, 120))
    check(t, database, ended=True)


def body(t):
    one_mode(t, "delete")
    one_mode(t, "wal")


trial.main(body)
